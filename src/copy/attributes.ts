// SPDX-License-Identifier: MIT
// Extended attributes as bytes: for each a 16-bit length of the name, a 32-bit length of the value,
// little-endian, then both. And which of them a copy takes along.

/** Bytes in front of each name. */
const HEAD_BYTES = 6;
const NAME_BYTES_MAX = 255;
/** Linux's bound of a value (XATTR_SIZE_MAX). */
const VALUE_BYTES_MAX = 65_536;
export const NO_EXTRA: Uint8Array = new Uint8Array(0);

/**
 * Whether an attribute is one of the file's user. What the system's own attributes mean depends on
 * the machine; of those, access lists and capabilities go along between superusers.
 */
export function isCopiedAttribute(name: string, keepsOwners: boolean): boolean {
  if (name.startsWith("user.") && name.length > 5) return true;
  return keepsOwners && SYSTEM_ATTRIBUTES.includes(name);
}

const SYSTEM_ATTRIBUTES: readonly string[] = [
  "system.posix_acl_access",
  "system.posix_acl_default",
  "security.capability",
];

export interface ExtendedAttribute {
  /** A byte string. */
  readonly name: string;
  readonly value: Uint8Array;
}

export function encodeExtra(attributes: readonly ExtendedAttribute[]): Uint8Array {
  let length = 0;
  for (const { name, value } of attributes) length += HEAD_BYTES + name.length + value.length;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { name, value } of attributes) {
    view.setUint16(at, name.length, true);
    view.setUint32(at + 2, value.length, true);
    at += HEAD_BYTES;
    for (let i = 0; i < name.length; i++) bytes[at + i] = name.charCodeAt(i);
    bytes.set(value, at + name.length);
    at += name.length + value.length;
  }
  return bytes;
}

/** @returns null where the lengths lie. Values are views of `bytes`. */
export function decodeExtra(bytes: Uint8Array): ExtendedAttribute[] | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const attributes: ExtendedAttribute[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (at + HEAD_BYTES > bytes.length) return null;
    const nameLength = view.getUint16(at, true);
    const valueLength = view.getUint32(at + 2, true);
    at += HEAD_BYTES;
    if (nameLength === 0 || nameLength > NAME_BYTES_MAX) return null;
    if (valueLength > VALUE_BYTES_MAX || at + nameLength + valueLength > bytes.length) return null;
    let name = "";
    for (let i = 0; i < nameLength; i++) name += String.fromCharCode(bytes[at + i] as number);
    if (name.includes("\0")) return null;
    const value = bytes.subarray(at + nameLength, at + nameLength + valueLength);
    attributes.push({ name, value });
    at += nameLength + valueLength;
  }
  return attributes;
}
