-- SPDX-License-Identifier: MIT
-- Wireshark dissector of RTRS and RNBD over RoCEv2 (docs/trace.md says how to use it).
--
-- It takes UDP port 4791, lets the stock InfiniBand dissector work, and adds layers: `rtrs`, and for
-- what it carries `rnbd` or, of farpage's own file copies, `fcopy`. Bytes are read from the UDP payload itself, so nothing depends on which fields the stock
-- dissector makes. The first pass over a capture, in order, learns which queue pairs are RTRS' and
-- what each packet is (`learn`); what it found is kept per frame, and shown then and later (`show`).

local rtrs = Proto("rtrs", "RDMA Transport")
local rnbd = Proto("rnbd", "RDMA Network Block Device")
local fcopy = Proto("fcopy", "farpage file copy")
local hook = Proto("rtrs_roce", "RoCEv2 that may carry RTRS")

hook.prefs.port = Pref.uint("UDP port", 4791, "UDP port of RoCEv2")
rtrs.prefs.qps = Pref.string("Queue pairs", "",
  "Queue pair numbers (destination QP of either direction, comma separated) that are RTRS though "
  .. "the capture lacks their connection set-up")
rtrs.prefs.depth = Pref.uint("Queue depth", 512,
  "Queue depth of sessions whose connection set-up is not in the capture (farpage: 128, Linux: 512)")

-- ---------------------------------------------------------------------------------------- names

local MESSAGE_TYPES = { [0] = "INFO_REQ", "INFO_RSP", "WRITE", "READ", "RKEY_RSP" }
local IMM_TYPES = { [0] = "I/O request", [1] = "I/O response",
  [2] = "I/O response, key invalidated", [8] = "Heartbeat", [9] = "Heartbeat ack" }
local RNBD_TYPES = { [0] = "SESS_INFO", "SESS_INFO_RSP", "OPEN", "OPEN_RSP", "IO", "CLOSE" }
local RNBD_OPS = { [0] = "read", "write", "flush", "discard", "secure erase", "write zeroes" }
local COPY_TYPES = { "HELLO", "BATCH", "ANSWER", "OPEN", "SUMS", "BLOCK", "FINISH", "PULL", "TELL" }
local COPY_TELLS = { "found", "problem", "done", "failed" }
local ACCESS = { [0] = "ro", "rw", "migration" }
local ERRNO = { [0] = "OK", [1] = "EPERM", [2] = "ENOENT", [5] = "EIO", [6] = "ENXIO",
  [7] = "E2BIG", [11] = "EAGAIN", [12] = "ENOMEM", [13] = "EACCES", [16] = "EBUSY",
  [17] = "EEXIST", [19] = "ENODEV", [22] = "EINVAL", [24] = "EMFILE", [27] = "EFBIG",
  [28] = "ENOSPC", [30] = "EROFS", [34] = "ERANGE", [36] = "ENAMETOOLONG", [61] = "ENODATA",
  [71] = "EPROTO", [84] = "EILSEQ", [90] = "EMSGSIZE", [95] = "EOPNOTSUPP",
  [103] = "ECONNABORTED", [104] = "ECONNRESET", [107] = "ENOTCONN", [108] = "ESHUTDOWN",
  [110] = "ETIMEDOUT", [112] = "EHOSTDOWN", [121] = "EREMOTEIO", [125] = "ECANCELED" }
local FLAGS = { { 0x100, "SYNC" }, { 0x200, "FUA" }, { 0x400, "PREFLUSH" }, { 0x800, "NOUNMAP" } }

local f = {
  message = ProtoField.string("rtrs.message", "Message"),
  type = ProtoField.uint16("rtrs.type", "Type", base.DEC, MESSAGE_TYPES),
  magic = ProtoField.uint16("rtrs.magic", "Magic", base.HEX),
  version = ProtoField.uint16("rtrs.version", "Version", base.HEX),
  cid = ProtoField.uint16("rtrs.cid", "Connection"),
  cid_num = ProtoField.uint16("rtrs.cid_num", "Connections of the path"),
  recon_cnt = ProtoField.uint16("rtrs.recon_cnt", "Attempts of the path"),
  path_uuid = ProtoField.bytes("rtrs.path_uuid", "Path UUID"),
  paths_uuid = ProtoField.bytes("rtrs.paths_uuid", "Session (paths) UUID"),
  first_conn = ProtoField.bool("rtrs.first_conn", "May create a session", 8, nil, 1),
  queue_depth = ProtoField.uint16("rtrs.queue_depth", "Queue depth"),
  max_io = ProtoField.uint32("rtrs.max_io_size", "Largest I/O"),
  max_hdr = ProtoField.uint32("rtrs.max_hdr_size", "Largest header"),
  new_rkey = ProtoField.bool("rtrs.new_rkey", "Server rotates keys", 32, nil, 2),
  reserved = ProtoField.bytes("rtrs.reserved", "Reserved"),
  name = ProtoField.string("rtrs.session", "Session name"),
  sg_cnt = ProtoField.uint16("rtrs.sg_cnt", "Descriptors"),
  desc = ProtoField.none("rtrs.desc", "Descriptor"),
  addr = ProtoField.uint64("rtrs.addr", "Address", base.HEX),
  rkey = ProtoField.uint32("rtrs.rkey", "Key", base.HEX),
  len = ProtoField.uint32("rtrs.len", "Length"),
  imm = ProtoField.uint32("rtrs.imm", "Immediate", base.HEX),
  imm_type = ProtoField.uint32("rtrs.imm.type", "Kind", base.DEC, IMM_TYPES, 0xf0000000),
  chunk = ProtoField.uint32("rtrs.chunk", "Chunk"),
  offset = ProtoField.uint32("rtrs.offset", "Offset of the RTRS header in the chunk"),
  errno = ProtoField.int32("rtrs.errno", "Errno"),
  usr_len = ProtoField.uint16("rtrs.usr_len", "Length of the user message"),
  need_inval = ProtoField.bool("rtrs.need_inval", "Invalidate the key", 16, nil, 1),
  data_len = ProtoField.uint32("rtrs.data_len", "Length of the data"),
  data = ProtoField.bytes("rtrs.data", "Data"),
  request_in = ProtoField.framenum("rtrs.request_in", "Request in", base.NONE, frametype.REQUEST),
  response_in = ProtoField.framenum("rtrs.response_in", "Response in", base.NONE,
    frametype.RESPONSE),
  time = ProtoField.relative_time("rtrs.time", "Time since the request"),
}
local g = {
  type = ProtoField.uint16("rnbd.type", "Type", base.DEC, RNBD_TYPES),
  ver = ProtoField.uint8("rnbd.ver", "Version"),
  access = ProtoField.uint8("rnbd.access", "Access", base.DEC, ACCESS),
  name = ProtoField.string("rnbd.name", "Device name"),
  device = ProtoField.uint32("rnbd.device", "Device id"),
  sector = ProtoField.uint64("rnbd.sector", "First sector"),
  rw = ProtoField.uint32("rnbd.rw", "Operation and flags", base.HEX),
  op = ProtoField.uint32("rnbd.op", "Operation", base.DEC, RNBD_OPS, 0xff),
  sync = ProtoField.bool("rnbd.flags.sync", "SYNC", 32, nil, 0x100),
  fua = ProtoField.bool("rnbd.flags.fua", "FUA", 32, nil, 0x200),
  preflush = ProtoField.bool("rnbd.flags.preflush", "PREFLUSH", 32, nil, 0x400),
  nounmap = ProtoField.bool("rnbd.flags.nounmap", "NOUNMAP", 32, nil, 0x800),
  bytes = ProtoField.uint32("rnbd.bytes", "Bytes on the device"),
  prio = ProtoField.uint16("rnbd.prio", "Priority", base.HEX),
  sectors = ProtoField.uint64("rnbd.sectors", "Size in sectors"),
  max_hw = ProtoField.uint32("rnbd.max_hw_sectors", "Largest request, sectors"),
  max_zeroes = ProtoField.uint32("rnbd.max_write_zeroes_sectors", "Largest write zeroes, sectors"),
  max_discard = ProtoField.uint32("rnbd.max_discard_sectors", "Largest discard, sectors"),
  granularity = ProtoField.uint32("rnbd.discard_granularity", "Discard granularity"),
  alignment = ProtoField.uint32("rnbd.discard_alignment", "Discard alignment"),
  physical = ProtoField.uint16("rnbd.physical_block", "Physical block size"),
  logical = ProtoField.uint16("rnbd.logical_block", "Logical block size"),
  segments = ProtoField.uint16("rnbd.max_segments", "Segments"),
  secure = ProtoField.uint16("rnbd.secure_discard", "Secure discard"),
  cache_fua = ProtoField.bool("rnbd.cache.fua", "FUA", 8, nil, 1),
  cache_back = ProtoField.bool("rnbd.cache.write_back", "Write-back cache", 8, nil, 2),
}
local c = {
  version = ProtoField.uint8("fcopy.version", "Version"),
  type = ProtoField.uint8("fcopy.type", "Type", base.DEC, COPY_TYPES),
  slot = ProtoField.uint16("fcopy.slot", "Slot"),
  argument = ProtoField.uint32("fcopy.argument", "Argument", base.DEC_HEX),
  bytes = ProtoField.uint32("fcopy.bytes", "Bytes"),
  offset = ProtoField.uint64("fcopy.offset", "Offset"),
  run = ProtoField.uint64("fcopy.run", "Run", base.HEX),
  path = ProtoField.string("fcopy.path", "Path"),
}
rtrs.fields, rnbd.fields, fcopy.fields = f, g, c
local bad = ProtoExpert.new("rtrs.bad", "Not as RTRS has it", expert.group.PROTOCOL,
  expert.severity.WARN)
rtrs.experts = { bad }

-- --------------------------------------------------------------------------------- small helpers

local MAGIC = "\xbd\x1b"
local COPY_MAGIC, COPY_HEADER = "FCPY", 32
local KEEP_WRITE = 65536 -- a user message and its header: max_hdr_size of any sane server
local KEEP_SEND = 8 + 16 * 65535 -- the largest INFO_RSP

local function u16(s, at) -- little-endian, `at` from 0
  return s:byte(at + 1) + s:byte(at + 2) * 256
end
local function u32(s, at)
  return u16(s, at) + u16(s, at + 2) * 65536
end
local function u64(s, at)
  return UInt64(u32(s, at), u32(s, at + 4))
end
local function div(a, b)
  return math.floor(a / b)
end
local function errno_text(value)
  local n = math.abs(value)
  return n == 0 and "OK" or string.format("%s (%d)", ERRNO[n] or "errno", value)
end
local function hex(n)
  return string.format("0x%08x", n)
end
--- Bits of an I/O request's immediate that are the offset.
local function shift_of(depth)
  local bits, n = 0, 1
  while n < depth do
    bits, n = bits + 1, n * 2
  end
  return 28 - bits
end

-- RC opcodes that RTRS uses: place in the message, and which headers follow the BTH.
local OPS = {}
for op, text in pairs({ [0x00] = "send first", [0x01] = "send middle", [0x02] = "send last",
  [0x03] = "send last imm", [0x04] = "send only", [0x05] = "send only imm",
  [0x06] = "write first reth", [0x07] = "write middle", [0x08] = "write last",
  [0x09] = "write last imm", [0x0a] = "write only reth", [0x0b] = "write only reth imm",
  [0x16] = "send last inv", [0x17] = "send only inv" }) do
  local has = {}
  for word in text:gmatch("%a+") do has[word] = true end
  has.starts, has.ends = has.first or has.only, has.last or has.only
  OPS[op] = has
end

-- -------------------------------------------------------------------------------- what is learnt

-- flows: "src>dst#destination QP" to a flow {up = to the server, path, msg = message under way};
-- connects: REQs by addresses and communication id; paths by UUID; frames: records by frame number.
local flows, connects, paths, frames = {}, {}, {}, {}
function hook.init()
  flows, connects, paths, frames = {}, {}, {}, {}
end

local function new_path(depth)
  return { depth = depth, shift = shift_of(depth), pending = {}, keys = {}, regions = nil }
end

local function cm_learn(p, r, src, dst)
  local mad, at = p.data, nil
  local attribute = mad:byte(17) * 256 + mad:byte(18)
  local function be(from, n)
    local v = 0
    for i = 1, n do v = v * 256 + mad:byte(from + i) end
    return v
  end
  if attribute == 0x10 then
    for _, offset in ipairs({ 200, 164 }) do
      if mad:sub(offset + 3, offset + 4) == MAGIC then at = offset break end
    end
    local client = dst .. ">" .. src .. "#" .. be(56, 3)
    local key = src .. ">" .. dst .. "#" .. be(24, 4)
    if at == nil then
      flows[client], connects[key] = nil, nil -- the number now belongs to somebody else
      return false
    end
    local uuid = src .. dst .. mad:sub(at + 13, at + 28)
    local path, attempt = paths[uuid], u16(mad, at + 10)
    if path == nil or path.attempt ~= attempt then
      path = new_path(1)
      path.attempt, paths[uuid] = attempt, path
    end
    local old = flows[client]
    if old == nil or old.path ~= path then flows[client] = { up = false, path = path } end
    connects[key] = path
    r.name, r.cm = "Connect request", "req"
    r.info = string.format("connection %d of %d, attempt %d", u16(mad, at + 6), u16(mad, at + 8),
      attempt)
  elseif attribute == 0x13 or attribute == 0x12 then
    at = attribute == 0x13 and 60 or 108
    local path = connects[dst .. ">" .. src .. "#" .. be(28, 4)]
    if mad:sub(at + 1, at + 2) ~= MAGIC then
      if attribute == 0x13 then flows[dst .. ">" .. src .. "#" .. be(36, 3)] = nil end
      return false
    end
    local errno = u16(mad, at + 4)
    if errno >= 32768 then errno = errno - 65536 end
    if attribute == 0x12 then
      r.name, r.cm, r.info = "Connect reject", "rsp", errno_text(errno)
    else
      local depth = u16(mad, at + 6)
      path = path or new_path(depth)
      path.depth, path.shift = depth, shift_of(depth)
      path.chunk_size = u32(mad, at + 8) + u32(mad, at + 12)
      local key = dst .. ">" .. src .. "#" .. be(36, 3)
      if flows[key] == nil or flows[key].path ~= path then
        flows[key] = { up = true, path = path }
      end
      r.name, r.cm = "Connect reply", "rsp"
      r.info = string.format("queue depth %d, chunks of %d, keys %s", depth, path.chunk_size,
        u32(mad, at + 16) % 4 >= 2 and "rotate" or "fixed")
    end
  else
    return false
  end
  r.at = at
  return true
end

local function by_hand(qp)
  for number in rtrs.prefs.qps:gmatch("[^%s,;]+") do
    if tonumber(number) == qp then return true end
  end
  return false
end

--- The flow of a packet: learnt from the CM, or named by hand.
local function flow_of(src, dst, qp)
  local key = src .. ">" .. dst .. "#" .. qp
  local flow = flows[key]
  if flow == nil and by_hand(qp) then
    local pair = "by hand " .. (src < dst and src .. "|" .. dst or dst .. "|" .. src)
    paths[pair] = paths[pair] or new_path(math.max(1, math.min(65535, rtrs.prefs.depth)))
    flow = { path = paths[pair] }
    flows[key] = flow
  end
  return flow
end

--- Follows the message that a packet is part of.
-- Returns it, complete up to this packet, or nil when packets before are missing.
local function follow(flow, p)
  local m = flow.msg
  if p.op.starts then
    if m and p.op.first and m.first == p.psn then return m end -- sent again
    m = { first = p.psn, next = p.psn, write = p.op.write, va = p.va, key = p.key, len = p.len,
      tail = "", total = 0 }
    flow.msg = m
  elseif m == nil or m.next ~= p.psn or m.write ~= p.op.write then
    return nil -- lost, out of order, sent again, or of another message
  end
  m.next = (m.next + 1) % 16777216
  m.total = m.total + p.size
  m.tail = #p.data == p.size and (m.tail .. p.data):sub(p.op.send and -KEEP_SEND or -KEEP_WRITE)
    or "" -- a snapshot length cut it
  if p.op.ends then flow.msg = nil end
  return m
end

--- Where a chunk begins, when INFO_RSP was seen.
local function chunk_address(path, chunk)
  local n = path.regions and #path.regions or 0
  if n == 0 or chunk >= path.depth or path.depth % n ~= 0 then return nil end
  local each = path.depth / n
  return path.regions[div(chunk, each) + 1] + UInt64(chunk % each * (path.chunk_size or 0))
end

--- Whether an RTRS header `back` bytes before the end of a message is whole and true.
local function header_at(tail, back, offset, total)
  if back < 4 or back > #tail then return false end
  local at = #tail - back
  local kind, user = u16(tail, at), u16(tail, at + 2)
  if user > offset or (total and user > total - back) then return false end
  if kind == 2 then return back == 4 and (total == nil or total == offset + 4) end
  if kind ~= 3 or back < 8 then return false end
  return back == 8 + 16 * u16(tail, at + 6) and (total == nil or total == user + back)
end

local function io_summary(s)
  local rw, text = u32(s, 16), {}
  for _, flag in ipairs(FLAGS) do
    if div(rw, flag[1]) % 2 == 1 then text[#text + 1] = flag[2] end
  end
  local op = rw % 256
  local what = RNBD_OPS[op] or "op " .. op
  local where = op == 2 and "" or string.format(" sector %s, %d bytes", tostring(u64(s, 8)),
    u32(s, 20))
  return string.format("%s device %d%s%s", what, u32(s, 4), where,
    #text > 0 and " " .. table.concat(text, "|") or "")
end

local function rnbd_summary(s)
  if #s < 4 then return "message too short" end
  local kind = u16(s, 0)
  local name = RNBD_TYPES[kind] or "unknown type " .. kind
  if kind <= 1 and #s >= 5 then return name .. " version " .. s:byte(5) end
  if kind == 2 and #s >= 7 then
    return string.format("%s %s %s", name, ACCESS[s:byte(5)] or "?", s:match("^[^%z]*", 7))
  elseif kind == 3 and #s >= 16 then
    return string.format("%s device %d, %s sectors", name, u32(s, 4), tostring(u64(s, 8)))
  elseif kind == 4 and #s >= 24 then
    return io_summary(s)
  elseif kind == 5 and #s >= 8 then
    return string.format("%s device %d", name, u32(s, 4))
  end
  return name
end

local function is_copy(s)
  return #s >= COPY_HEADER and s:sub(1, 4) == COPY_MAGIC
end

local function copy_summary(s)
  local kind = s:byte(6)
  local name, argument = COPY_TYPES[kind] or "unknown type " .. kind, u32(s, 8)
  local bytes, offset = u32(s, 12), tostring(u64(s, 16))
  local path = s:sub(COPY_HEADER + 1):match("^[^%z]*")
  local text = ({
    [2] = string.format("%d records", argument),
    [3] = string.format("%d records", argument),
    [4] = string.format("%s, %s bytes", path, offset),
    [5] = string.format("%d blocks from %s", argument, offset),
    [6] = string.format("%s, %d bytes", offset, bytes),
    [9] = COPY_TELLS[argument] or tostring(argument),
  })[kind]
  return name .. (text and " " .. text or "")
end

--- What RTRS carries, in words.
local function user_summary(s)
  if is_copy(s) then return "copy " .. copy_summary(s) end
  return "RNBD " .. rnbd_summary(s)
end

local function learn_request(flow, p, r, m)
  local path = flow.path
  local payload, size = p.imm % 268435456, math.floor(2 ^ path.shift)
  r.chunk, r.offset = div(payload, size), payload % size
  r.name, r.info = "Request", string.format("chunk %d offset %d", r.chunk, r.offset)
  local before = path.pending[r.chunk] -- this one, when it is sent again, or one that is over
  if before and (before.flow ~= flow or before.psn ~= p.psn) then before = nil end
  path.pending[r.chunk] = before
  local tail = m and m.tail or (#p.data == p.size and p.data or "")
  if tail == "" then
    r.info = r.info .. ", header not captured"
    return
  end
  local back
  local base = m and chunk_address(path, r.chunk)
  if base then -- the immediate says where it is; RETH says where the message is
    local at = (base + UInt64(r.offset) - m.va):tonumber()
    if header_at(tail, m.len - at, r.offset, m.total) then back = m.len - at end
  else
    for _, try in ipairs({ 4, 24, 8 }) do
      if header_at(tail, try, r.offset, m and m.total) then back = try break end
    end
  end
  if back == nil then
    r.bad = "no RTRS header where the immediate points"
    return
  end
  local at = #tail - back
  local user = u16(tail, at + 2)
  local q = before or { flow = flow, psn = p.psn, frame = p.frame, time = p.time, len = r.offset - user,
    chunk = r.chunk }
  if back == 24 then
    q.addr, q.key, q.length = u64(tail, at + 8), u32(tail, at + 16), u32(tail, at + 20)
    path.keys[q.key] = q
  end
  path.pending[r.chunk] = q
  r.name, r.header, r.user, r.mine = MESSAGE_TYPES[u16(tail, at)], back, user, q
  local message = at >= user and tail:sub(at - user + 1, at) or ""
  if at < user then r.user = 0 end -- its beginning is in a packet that was not captured
  q.kind = #message >= 4 and u16(message, 0) or q.kind
  q.copy = is_copy(message) or q.copy
  q.text = #message > 0 and user_summary(message) or "message not captured"
  r.info = r.info .. ", " .. q.text
  if back + r.user > p.size then r.whole = tail:sub(-(back + r.user)) end
end

local function learn_reply(flow, p, r)
  r.errno, r.chunk = div(p.imm, 524288) % 512, p.imm % 524288
  r.name = IMM_TYPES[div(p.imm, 268435456)]
  r.request = flow.path.pending[r.chunk]
  if r.request then r.request.response = p.frame end
  r.info = string.format("chunk %d, %s", r.chunk, errno_text(r.errno))
  if p.op.send and #p.data >= 8 and u16(p.data, 0) == 4 then
    r.send = 4
    r.info = r.info .. ", new rkey " .. hex(u32(p.data, 4))
  elseif p.size > 0 then
    r.bad = "a response with something else than RKEY_RSP"
  end
end

local function learn_send(flow, p, r, m)
  local s = m and m.tail or p.data
  local kind = #s >= 2 and u16(s, 0) or nil
  if not p.op.ends or m == nil then
    r.name = "Message part"
    return
  elseif #s < m.total then
    s = p.op.starts and p.data or ""
    r.name = #s >= 2 and MESSAGE_TYPES[u16(s, 0)] or "Message part"
    r.info = "cut short by the capture"
    return
  end
  if kind == 0 and #s >= 257 then
    r.info, flow.up = s:match("^[^%z]*", 3), true
  elseif kind == 1 and #s >= 8 then
    flow.up = false
    local n = math.min(u16(s, 2), div(#s - 8, 16))
    local regions = {}
    for i = 0, n - 1 do regions[i + 1] = u64(s, 8 + 16 * i) end
    flow.path.regions = regions
    r.info = n == 1 and "1 region" or n .. " regions"
  else
    r.name, r.bad = "Message", "neither INFO_REQ nor INFO_RSP"
    return
  end
  r.name, r.send = MESSAGE_TYPES[kind], kind
  if #s > p.size then r.whole = s end
end

--- RDMA WRITE without an immediate: what a request asked for, or a request's first packets.
local function learn_data(flow, p, r, m)
  local q = m and m.request
  if q == nil and p.op.starts and flow.up ~= true then
    q = flow.path.keys[p.key]
    if q and q.addr ~= p.va then q = nil end
    if m then m.request = q end
  end
  if q then flow.up = false end
  r.request = q
  if flow.up == true or (flow.up == nil and q == nil and not p.op.ends) then
    r.name = "Request data"
    return
  end
  local answer = q and (q.kind == 0 or q.kind == 2) and m and p.op.ends
  r.name = "Read data"
  r.info = string.format("%d bytes%s", p.size, q and ", chunk " .. q.chunk or "")
  if answer and #m.tail >= (q.kind == 0 and 36 or 56) then
    r.name, r.answer = "Response data", #m.tail
    r.info = string.format("chunk %d, RNBD %s", q.chunk, rnbd_summary(m.tail))
    if #m.tail > p.size then r.whole = m.tail end
  end
end

local function learn(flow, p, r)
  local m = follow(flow, p)
  local kind = p.imm and div(p.imm, 268435456)
  r.up = flow.up
  if p.op.inv then
    r.name, r.request = "Invalidate key", flow.path.keys[p.ieth]
    r.info = hex(p.ieth) .. (r.request and ", chunk " .. r.request.chunk or "")
    flow.up = false
  elseif kind == 8 or kind == 9 then
    r.name = IMM_TYPES[kind]
  elseif kind == 1 or kind == 2 then
    flow.up = false
    learn_reply(flow, p, r)
  elseif kind == 0 and p.op.write then
    flow.up = true
    learn_request(flow, p, r, m)
  elseif kind then
    r.name, r.bad = "Immediate", "unknown kind of immediate"
  elseif p.op.send then
    learn_send(flow, p, r, m)
  else
    learn_data(flow, p, r, m)
  end
  r.up = flow.up
end

-- ----------------------------------------------------------------------------------------- trees

--- A name ends with a NUL, or where its field does (a stringz would read on).
local function add_name(tree, field, range)
  tree:add(field, range, range:raw():match("^[^%z]*"))
end

--- @param data_bytes  what a read's or write's bi_size must be; nil when there is nothing to compare
local function show_rnbd(t, root, data_bytes)
  local n = t:len()
  local tree = root:add(rnbd, t)
  if n < 4 then
    tree:add_proto_expert_info(bad, "RNBD message too short")
    return
  end
  local kind = t(0, 2):le_uint()
  tree:append_text(", " .. rnbd_summary(t:raw(0, n)))
  tree:add_le(g.type, t(0, 2))
  local need = ({ [0] = 36, 36, 264, 56, 24, 8 })[kind]
  if need == nil then
    tree:add_proto_expert_info(bad, "unknown RNBD message")
  elseif n < need then
    tree:add_proto_expert_info(bad, string.format("%d bytes, not %d", n, need))
  elseif kind <= 1 then
    tree:add(g.ver, t(4, 1))
  elseif kind == 2 then
    tree:add(g.access, t(4, 1))
    add_name(tree, g.name, t(6, 255))
  elseif kind == 3 then
    for _, field in ipairs({ { g.device, 4, 4 }, { g.sectors, 8, 8 }, { g.max_hw, 16, 4 },
      { g.max_zeroes, 20, 4 }, { g.max_discard, 24, 4 }, { g.granularity, 28, 4 },
      { g.alignment, 32, 4 }, { g.physical, 36, 2 }, { g.logical, 38, 2 }, { g.segments, 40, 2 },
      { g.secure, 42, 2 }, { g.cache_fua, 45, 1 }, { g.cache_back, 45, 1 } }) do
      tree:add_le(field[1], t(field[2], field[3]))
    end
  elseif kind == 4 then
    tree:add_le(g.device, t(4, 4))
    tree:add_le(g.sector, t(8, 8))
    local rw = tree:add_le(g.rw, t(16, 4))
    for _, field in ipairs({ g.op, g.sync, g.fua, g.preflush, g.nounmap }) do
      rw:add_le(field, t(16, 4))
    end
    tree:add_le(g.bytes, t(20, 4))
    if n >= 26 then tree:add_le(g.prio, t(24, 2)) end
    if not RNBD_OPS[t(16, 1):uint()] then
      tree:add_proto_expert_info(bad, "unknown operation")
    end
  else
    tree:add_le(g.device, t(4, 4))
  end
  if data_bytes and kind == 4 and n >= 24 and t(16, 1):uint() < 2
    and data_bytes ~= t(20, 4):le_uint() then
    tree:add_proto_expert_info(bad, "bi_size is not the length of the data")
  end
end

local function show_copy(t, root)
  local n = t:len()
  local tree = root:add(fcopy, t)
  tree:append_text(", " .. copy_summary(t:raw(0, n)))
  tree:add(c.version, t(4, 1))
  tree:add(c.type, t(5, 1))
  for _, field in ipairs({ { c.slot, 6, 2 }, { c.argument, 8, 4 }, { c.bytes, 12, 4 },
    { c.offset, 16, 8 }, { c.run, 24, 8 } }) do
    tree:add_le(field[1], t(field[2], field[3]))
  end
  if n > COPY_HEADER then tree:add(c.path, t(COPY_HEADER, n - COPY_HEADER)) end
  if t(4, 1):uint() ~= 1 or not COPY_TYPES[t(5, 1):uint()] then
    tree:add_proto_expert_info(bad, "unknown copy message")
  end
end

local function show_descriptor(tree, t)
  local d = tree:add(f.desc, t)
  d:add_le(f.addr, t(0, 8))
  d:add_le(f.rkey, t(8, 4))
  d:add_le(f.len, t(12, 4))
  d:append_text(string.format(": %s, %d bytes", hex(t(8, 4):le_uint()), t(12, 4):le_uint()))
end

local function show_cm(r, t, tree)
  local at = r.cm == "req" and 2 or 0
  tree:add_le(f.magic, t(at, 2))
  local version = tree:add_le(f.version, t(at + 2, 2))
  if t(at + 3, 1):uint() ~= 2 then version:add_proto_expert_info(bad, "not version 2") end
  if r.cm == "req" then
    tree:add_le(f.cid, t(6, 2))
    tree:add_le(f.cid_num, t(8, 2))
    tree:add_le(f.recon_cnt, t(10, 2))
    tree:add(f.path_uuid, t(12, 16))
    tree:add(f.paths_uuid, t(28, 16))
    tree:add(f.first_conn, t(44, 1))
    return
  end
  tree:add_le(f.errno, t(4, 2), t(4, 2):le_int()):append_text(" " .. errno_text(t(4, 2):le_int()))
  tree:add_le(f.queue_depth, t(6, 2))
  tree:add_le(f.max_io, t(8, 4))
  tree:add_le(f.max_hdr, t(12, 4))
  tree:add_le(f.new_rkey, t(16, 4))
end

local function show_immediate(r, p, tree)
  local range = p.t(p.imm_at, 4)
  local imm = tree:add(f.imm, range)
  imm:add(f.imm_type, range)
  if r.offset then
    imm:add(f.chunk, range, r.chunk)
    imm:add(f.offset, range, r.offset)
  elseif r.errno then
    imm:add(f.errno, range, r.errno):append_text(" " .. errno_text(r.errno))
    imm:add(f.chunk, range, r.chunk)
  end
end

local function show_link(r, p, tree)
  local q = r.request
  if q then
    if not r.errno then tree:add(f.chunk, q.chunk):set_generated() end
    tree:add(f.request_in, q.frame):set_generated():append_text(": " .. q.text)
    local dt = math.max(0, p.time - q.time)
    local whole = math.floor(dt)
    tree:add(f.time, NSTime(whole, math.floor((dt - whole) * 1e9 + 0.5))):set_generated()
  end
  if r.mine and r.mine.response then
    tree:add(f.response_in, r.mine.response):set_generated()
  end
end

local function show_send(r, t, tree)
  tree:add_le(f.type, t(0, 2))
  if r.send == 0 then
    add_name(tree, f.name, t(2, 255))
  elseif r.send == 4 then
    tree:add_le(f.chunk, t(2, 2))
    tree:add_le(f.rkey, t(4, 4))
  else
    local n = t(2, 2):le_uint()
    tree:add_le(f.sg_cnt, t(2, 2))
    for i = 0, math.min(n, div(t:len() - 8, 16)) - 1 do show_descriptor(tree, t(8 + 16 * i, 16)) end
    if t:len() ~= 8 + 16 * n then
      tree:add_proto_expert_info(bad, "another length than its descriptors need")
    end
  end
end

--- The end of a request: [user message][RTRS header], `t` beginning at the message.
local function show_request(r, t, tree, root)
  local h = t(r.user, r.header)
  tree:add_le(f.type, h(0, 2))
  tree:add_le(f.usr_len, h(2, 2))
  tree:add(f.data_len, r.mine.len):set_generated()
  if r.header >= 8 then
    tree:add_le(f.need_inval, h(4, 2))
    tree:add_le(f.sg_cnt, h(6, 2))
  end
  if r.header == 24 then show_descriptor(tree, h(8, 16)) end
  if r.user == 0 then return end
  local message = t(0, r.user):tvb()
  if is_copy(message:raw(0, r.user)) then
    show_copy(message, root)
  else
    show_rnbd(message, root, r.mine.len)
  end
end

local function show(r, p, pinfo, root)
  local which = r.mine and r.user > 0 or r.answer
  pinfo.cols.protocol = which and (r.mine and r.mine.copy and "FCOPY" or "RNBD") or "RTRS"
  local text = r.name .. (r.info and ", " .. r.info or "")
  if r.request and r.errno then text = text .. " (" .. r.request.text .. ")" end
  pinfo.cols.info = "RTRS " .. text .. (p.qp and string.format(" QP=0x%06x", p.qp) or "")
  local last = #p.data
  local tree = root:add(rtrs, last > 0 and p.t(p.at, last) or p.t(0, p.at))
  tree:append_text(", " .. text)
  tree:add(f.message, r.name):set_generated()
  if r.bad then
    tree:add_proto_expert_info(bad, r.bad)
  end
  if r.cm then
    show_cm(r, p.t(p.at + r.at, math.min(56, last - r.at)), tree)
    return
  end
  if p.imm then show_immediate(r, p, tree) end
  if p.ieth then tree:add(f.rkey, p.t(p.ieth_at, 4)) end
  show_link(r, p, tree)
  local from = 0 -- of what is still to be shown, in this packet's payload
  local t = r.whole and ByteArray.new(r.whole, true):tvb("RTRS message")
  if r.header then
    local size = r.user + r.header
    from = math.max(0, last - size)
    if from > 0 then tree:add(f.data, p.t(p.at, from)) end
    show_request(r, t and t(0, size):tvb() or p.t(p.at + from, size):tvb(), tree, root)
  elseif r.send then
    show_send(r, t or p.t(p.at, last):tvb(), tree)
  elseif r.answer then
    show_rnbd(t or p.t(p.at, last):tvb(), root)
  elseif last > 0 then
    tree:add(f.data, p.t(p.at, last))
  end
end

-- ------------------------------------------------------------------------------------ the packet

--- Reads the headers of a packet. @return nil when it is neither a CM MAD nor for an RC queue pair
local function parse(t, pinfo)
  local reported, captured = t:reported_len(), t:captured_len()
  if captured < 12 or reported < 16 then return nil end
  local opcode = t(0, 1):uint()
  local p = { t = t, qp = t(5, 3):uint(), psn = t(9, 3):uint(), frame = pinfo.number,
    time = pinfo.rel_ts }
  local at = 12
  if opcode == 0x64 and p.qp == 1 then
    p.mad, p.qp, at = true, nil, 20
  else
    p.op = OPS[opcode]
    if p.op == nil then return nil end
    local need = (p.op.reth and 16 or 0) + ((p.op.imm or p.op.inv) and 4 or 0)
    if captured < at + need then return nil end
    if p.op.reth then
      p.va, p.key, p.len = t(12, 8):uint64(), t(20, 4):uint(), t(24, 4):uint()
      at = 28
    end
    if p.op.imm then p.imm, p.imm_at, at = t(at, 4):uint(), at, at + 4 end
    if p.op.inv then p.ieth, p.ieth_at, at = t(at, 4):uint(), at, at + 4 end
  end
  local pad = div(t(1, 1):uint(), 16) % 4
  p.at, p.size = at, reported - 4 - pad - at
  if p.size < 0 then return nil end
  local here = math.max(0, math.min(p.size, captured - at))
  p.data = here > 0 and t:raw(at, here) or ""
  if p.mad and (here < 256 or p.data:byte(2) ~= 7) then return nil end
  return p
end

--- What a packet is; worked out when it is seen for the first time, in the capture's order.
local function record(p, pinfo)
  local r = frames[p.frame]
  if r ~= nil or pinfo.visited then return r end
  local src, dst = tostring(pinfo.src), tostring(pinfo.dst)
  r = {}
  if p.mad then
    if not cm_learn(p, r, src, dst) then r = nil end
  else
    local flow = flow_of(src, dst, p.qp)
    if flow == nil then return nil end
    learn(flow, p, r)
  end
  frames[p.frame] = r
  return r
end

local malformed = ProtoExpert.new("rtrs_roce.malformed", "Malformed RoCEv2 packet",
  expert.group.MALFORMED, expert.severity.ERROR)
hook.experts = { malformed }

-- The stock dissector offers each payload to heuristics, and its RPC-over-RDMA one takes RTRS
-- packets for its own. Heuristics registered later are asked first: this one answers for RTRS.
local ours = false
rtrs:register_heuristic("infiniband.payload", function() return ours end)

local stock
local port
function hook.dissector(t, pinfo, root)
  local p = parse(t, pinfo)
  local r = p and record(p, pinfo)
  ours = r ~= nil and not p.mad
  local done, taken = pcall(stock.call, stock, t, pinfo, root)
  ours = false
  if not done then -- it ran off the end of a packet; alone it would say the same
    taken = t:len()
    root:add_proto_expert_info(malformed)
  end
  if r then show(r, p, pinfo, root) end
  return taken
end

local function take_port()
  local table = DissectorTable.get("udp.port")
  if port then table:set(port, stock) end
  port = hook.prefs.port
  table:set(port, hook)
end
stock = DissectorTable.get("udp.port"):get_dissector(4791)
hook.prefs_changed = take_port
take_port()
