// SPDX-License-Identifier: MIT
// Datagram extended transport header (IBTA vol1 §9.3), 8 bytes: Q_Key, one reserved byte, the
// sender's 24-bit QPN. Accessors take the view and the offset of the DETH; precondition: 8 bytes.

export const DETH_BYTES = 8;

/** Q_Key of every general services interface (RoCEv2 facts §17). */
export const QKEY_GSI = 0x8001_0000;
/** Q_Key that RDMA CM gives to UD queue pairs unless told otherwise. */
export const QKEY_RDMA_CM = 0x0123_4567;

export function dethQkey(view: DataView, offset: number): number {
  return view.getUint32(offset);
}

/** 24 bits: whom to answer. */
export function dethSourceQpn(view: DataView, offset: number): number {
  return view.getUint32(offset + 4) & 0xffffff;
}

/** Writes all 8 bytes, the reserved one as 0. Preconditions: qkey 32 bits, sourceQpn 24 bits. */
export function writeDeth(view: DataView, offset: number, qkey: number, sourceQpn: number): void {
  view.setUint32(offset, qkey);
  view.setInt32(offset + 4, sourceQpn);
}
