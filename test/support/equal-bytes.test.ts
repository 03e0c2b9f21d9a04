// SPDX-License-Identifier: MIT
import { expect, it } from "vitest";

const bytes = (...values: number[]) => Uint8Array.from(values);

it("byte strings are equal when their bytes are, wherever they lie", () => {
  const some = bytes(9, 1, 2, 3, 9).subarray(1, 4);
  expect(some).toEqual(bytes(1, 2, 3));
  expect({ some }).toEqual({ some: bytes(1, 2, 3) });
  expect([some]).toStrictEqual([bytes(1, 2, 3)]);
  expect(some).not.toEqual(bytes(1, 2, 4));
  expect(some).not.toEqual(bytes(1, 2));
  expect({ some }).not.toMatchObject({ some: bytes(1, 2, 3, 0) });
});

it("what else they are is the runner's to compare", () => {
  expect(Buffer.of(1, 2)).not.toEqual(bytes(1, 2));
  expect(bytes(1, 2)).not.toEqual([1, 2]);
  expect(bytes(1, 2)).not.toEqual(Uint16Array.of(1, 2));
});
