# SPDX-License-Identifier: MIT
"""ibv_rc_pingpong with messages of 0 bytes, which the stock program can't send: it would register
a buffer of no bytes, and the kernel refuses that. So the queue pair is driven by pyverbs, with work
requests that name 0 bytes of a buffer. Same lines over TCP as the stock program's.

usage: empty-pingpong.py GID_INDEX COUNT [SERVER]
"""

import socket
import sys
import time

from pyverbs.addr import AHAttr, GID, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.enums import (
    IBV_ACCESS_LOCAL_WRITE,
    IBV_MTU_1024,
    IBV_QPS_INIT,
    IBV_QPT_RC,
    IBV_WC_RECV,
    IBV_WC_SEND,
    IBV_WC_SUCCESS,
    IBV_WR_SEND,
)
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

PORT = 18515
PSN = 0x123456
LINE_BYTES = 52
SECONDS = 60


def read_exactly(stream, count):
    parts = b""
    while len(parts) < count:
        part = stream.recv(count - len(parts))
        if not part:
            sys.exit(f"the peer closed after {len(parts)} of {count} bytes")
        parts += part
    return parts


def write_line(stream, qpn, gid):
    digits = gid.replace(":", "")
    stream.sendall(f"0000:{qpn:06x}:{PSN:06x}:{digits}\0".encode())


def read_line(stream):
    _, qpn, psn, gid = read_exactly(stream, LINE_BYTES)[:-1].decode().split(":")
    groups = ":".join(gid[at : at + 4] for at in range(0, 32, 4))
    return int(qpn, 16), int(psn, 16), GID(groups)


def connect(qp, gid_index, peer):
    qpn, psn, gid = peer
    attr = QPAttr(port_num=1)
    attr.path_mtu = IBV_MTU_1024
    attr.dest_qp_num = qpn
    attr.rq_psn = psn
    attr.sq_psn = PSN
    attr.max_dest_rd_atomic = 1
    attr.max_rd_atomic = 1
    attr.min_rnr_timer = 12
    attr.timeout = 14
    attr.retry_cnt = 7
    attr.rnr_retry = 7
    route = GlobalRoute(dgid=gid, sgid_index=gid_index, hop_limit=64)
    attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
    qp.to_rts(attr)


def play(cq, qp, nothing, count, is_first):
    """One SEND of 0 bytes to and fro, `count` times; every completion is looked at."""
    completed = received = 0
    if is_first:
        qp.post_send(SendWR(opcode=IBV_WR_SEND, num_sge=1, sg=nothing))
    deadline = time.monotonic() + SECONDS
    while completed < count or received < count:
        if time.monotonic() > deadline:
            sys.exit(f"{completed} sends, {received} receives of {count} in {SECONDS} s")
        _, completions = cq.poll(16)
        for wc in completions:
            if wc.status != IBV_WC_SUCCESS:
                sys.exit(f"completion status {wc.status}")
            if wc.opcode == IBV_WC_SEND:
                completed += 1
            elif wc.opcode == IBV_WC_RECV:
                if wc.byte_len != 0:
                    sys.exit(f"a message of {wc.byte_len} bytes")
                received += 1
                qp.post_recv(RecvWR(num_sge=1, sg=nothing))
                posted = received if is_first else received - 1
                if posted < count:
                    qp.post_send(SendWR(opcode=IBV_WR_SEND, num_sge=1, sg=nothing))
    print(f"{completed} sends and {received} receives of 0 bytes")


def main():
    gid_index, count = int(sys.argv[1]), int(sys.argv[2])
    server = sys.argv[3] if len(sys.argv) > 3 else None
    context = Context(name="rxe0")
    cq = CQ(context, 64)
    caps = QPCap(max_send_wr=16, max_recv_wr=16, max_send_sge=1, max_recv_sge=1)
    pd = PD(context)
    mr = MR(pd, 4096, IBV_ACCESS_LOCAL_WRITE)
    nothing = [SGE(mr.buf, 0, mr.lkey)]
    qp = QP(pd, QPInitAttr(qp_type=IBV_QPT_RC, scq=cq, rcq=cq, cap=caps))
    init = QPAttr(qp_state=IBV_QPS_INIT, port_num=1)
    qp.to_init(init)
    for _ in range(8):
        qp.post_recv(RecvWR(num_sge=1, sg=nothing))
    gid = context.query_gid(1, gid_index).gid
    if server is None:
        listener = socket.create_server(("", PORT))
        stream, _ = listener.accept()
        peer = read_line(stream)
        connect(qp, gid_index, peer)
        write_line(stream, qp.qp_num, gid)
        read_exactly(stream, len("done\0"))
    else:
        stream = socket.create_connection((server, PORT), timeout=SECONDS)
        write_line(stream, qp.qp_num, gid)
        peer = read_line(stream)
        stream.sendall(b"done\0")
        connect(qp, gid_index, peer)
    play(cq, qp, nothing, count, server is not None)
    stream.close()


main()
