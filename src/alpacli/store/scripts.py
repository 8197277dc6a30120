"""The store's operations as Lua, each one atomic on the Redis server and one round trip.

They say the same as ``sqlite.py``, line for line where it matters; the contract tests hold the two together. The time is
the server's, so that many machines agree. All keys of an account carry its ``{FP}``, so a script stays on one cluster
slot. Every key expires, except notes (the halt), which stay. Times travel as text with six decimals: Lua's own number
format cuts them off at fourteen digits.
"""

from typing import Final

_TIME: Final = """
local stamp = redis.call('TIME')
local now = tonumber(stamp[1]) + tonumber(stamp[2]) / 1000000
local function text(number) return string.format('%.6f', number) end
"""

# KEYS: entry, hits, leases, index. ARGV: key, ...
_CACHE: Final = (
    _TIME
    + """
local KEEP = 86400
local function count(field)
  -- pcall: a full server still answers, it only does not count.
  redis.pcall('HINCRBY', KEYS[2], field, 1)
  redis.pcall('EXPIRE', KEYS[2], 30 * KEEP)
end
local function fresh(max_age)
  local found = redis.pcall('HMGET', KEYS[1], 'at', 'value')
  local at = tonumber(found[1])
  if not at or not found[2] then return nil end
  local age = now - at
  if age < 0 or age > math.min(max_age, KEEP) then return nil end
  return {'entry', text(age), found[2]}
end
local function lease()
  local held = redis.call('HGET', KEYS[3], ARGV[1]) or ''
  local ends, length, token = string.match(held, '^(%d+%.%d+) (%d+%.%d+) (.*)$')
  if not token then return nil end
  local left = ends - now
  -- One that ends absurdly late is of a time before the clock was set back.
  return token, left <= length + 1 and left or 0
end
local function hold(token, seconds)
  redis.call('HSET', KEYS[3], ARGV[1], text(now + seconds) .. ' ' .. text(seconds) .. ' ' .. token)
  redis.call('EXPIRE', KEYS[3], KEEP)
end
local function store(value)
  local kind = redis.call('TYPE', KEYS[1]).ok
  -- Not deleted blindly: after its first write a script is no longer stopped when the server is full.
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
  redis.call('HSET', KEYS[1], 'at', text(now), 'value', value)
  redis.call('EXPIRE', KEYS[1], KEEP)
  redis.call('ZADD', KEYS[4], text(now), ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', text(now - KEEP))
  redis.call('EXPIRE', KEYS[4], KEEP)
end
local function under(name, prefix)
  return name == prefix or string.sub(name, 1, #prefix + 1) == prefix .. ':'
end
"""
)

GET: Final = (
    _CACHE
    + """
local entry = fresh(tonumber(ARGV[2]))
count(entry and 'hits' or 'misses')
return entry
"""
)

CLAIM: Final = (
    _CACHE
    + """
local poll = tonumber(ARGV[5])
local entry = fresh(tonumber(ARGV[2]))
if entry then
  count('hits')
  return entry
end
local holder, left = lease()
if holder and holder ~= ARGV[4] and left > 0 then
  return {'busy', text(math.min(left, poll))}
end
if redis.call('HLEN', KEYS[3]) > 64 then
  local all = redis.call('HGETALL', KEYS[3])
  for i = 1, #all, 2 do
    if tonumber(string.match(all[i + 1], '^%S+')) < now then redis.call('HDEL', KEYS[3], all[i]) end
  end
end
hold(ARGV[4], tonumber(ARGV[3]))
if holder ~= ARGV[4] then count('misses') end
return {'lead'}
"""
)

RENEW: Final = (
    _CACHE
    + """
if lease() ~= ARGV[2] then return 0 end
hold(ARGV[2], tonumber(ARGV[3]))
return 1
"""
)

PUBLISH: Final = (
    _CACHE
    + """
if lease() ~= ARGV[2] then return 0 end
store(ARGV[3])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
"""
)

RELEASE: Final = (
    _CACHE
    + """
if lease() == ARGV[2] then redis.call('HDEL', KEYS[3], ARGV[1]) end
"""
)

PUT: Final = (
    _CACHE
    + """
store(ARGV[2])
"""
)

DROP: Final = (
    _CACHE
    + """
local dropped = 0
for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do
  if under(name, ARGV[1]) then redis.call('HDEL', KEYS[3], name) end
end
for _, name in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  if under(name, ARGV[1]) then
    dropped = dropped + redis.call('DEL', name)
    redis.call('ZREM', KEYS[4], name)
  end
end
return dropped
"""
)

STATS: Final = (
    _CACHE
    + """
local counts = redis.call('HMGET', KEYS[2], 'hits', 'misses')
local entries, bytes, oldest, newest = 0, 0, '', ''
local index = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
for i = 1, #index, 2 do
  local age = now - tonumber(index[i + 1])
  if under(index[i], ARGV[1]) and age >= 0 and age <= KEEP and redis.call('EXISTS', index[i]) == 1 then
    entries = entries + 1
    bytes = bytes + redis.call('HSTRLEN', index[i], 'value')
    if oldest == '' then oldest = text(age) end
    newest = text(age)
  end
end
return {tonumber(counts[1] or 0), tonumber(counts[2] or 0), entries, bytes, oldest, newest}
"""
)

# KEYS: sent, flying, waiting, budget, usage. ARGV: see RedisStore._budget.
_BUDGET: Final = (
    _TIME
    + """
local SENT, FLYING, WAITING, BUDGET, USAGE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local limit, reserve, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local breaker_failures, breaker_open = tonumber(ARGV[4]), tonumber(ARGV[5])
local flight, liveness, longest_wait, margin = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local id, label, urgent, host = ARGV[10], ARGV[11], ARGV[12] == '1', ARGV[13]

local row = redis.call('HMGET', BUDGET, 'foreign', 'until', 'cap')
local foreign, foreign_until = tonumber(row[1] or 0), tonumber(row[2] or 0)
local cap = tonumber(row[3] or 0)

local function keep(key) redis.call('EXPIRE', key, math.ceil(window + flight) + 3600) end
local function set(...)
  redis.call('HSET', BUDGET, ...)
  redis.call('EXPIRE', BUDGET, 86400)
end
local function breaker_of(one)
  local found = redis.call('HMGET', BUDGET, one .. ' failures', one .. ' open', one .. ' probe', one .. ' probe_until')
  return {failures = tonumber(found[1] or 0), open = tonumber(found[2] or 0), probe = found[3] or '',
          probe_until = tonumber(found[4] or 0)}
end
local function set_breaker(...)
  local fields = {...}
  for i = 1, #fields, 2 do fields[i] = host .. ' ' .. fields[i] end
  set(unpack(fields))
end
local function share(cap)
  if cap == 0 or cap >= limit then return limit, reserve end
  return cap, math.floor(reserve * cap / limit)
end
local function others()
  if now < foreign_until and foreign_until <= now + window + 1 then return foreign end
  return 0
end
local function no_later_than(latest, key)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. text(latest), '+inf')) do
    redis.call('ZADD', key, text(now), member)
  end
end
local function occupied()
  redis.call('ZREMRANGEBYSCORE', SENT, '-inf', '(' .. text(now - window))
  redis.call('ZREMRANGEBYSCORE', FLYING, '-inf', '(' .. text(now - window - flight))
  no_later_than(now + flight, SENT)
  no_later_than(now, FLYING)
  return redis.call('ZCARD', SENT) + redis.call('ZCARD', FLYING)
end
local function sent(member, at)
  local name = text(now) .. ' ' .. member
  -- Two of one ticket at the same moment are two.
  while redis.call('ZADD', SENT, 'NX', text(at), name) == 0 do name = name .. '+' end
  keep(SENT)
end
local function breaker_wait(breaker, ticket)
  if now < breaker.open then return math.min(breaker.open - now, breaker_open) end
  local probe, probe_until = breaker.probe, breaker.probe_until
  if probe ~= '' and probe ~= ticket and now < probe_until and probe_until <= now + flight + 1 then
    return math.min(probe_until - now, longest_wait)
  end
  return 0
end
local function take_place(ticket, seq, expires, wakes, since, is_urgent, name)
  redis.call('HSET', WAITING, ticket, string.format('%d %s %s %s %d %s', seq, text(expires), text(wakes), text(since),
                                                    is_urgent and 1 or 0, name))
  keep(WAITING)
end
local function queue()
  local all, living = redis.call('HGETALL', WAITING), {}
  for i = 1, #all, 2 do
    local seq, expires, wakes, since, is_urgent, name = string.match(all[i + 1], '^(%d+) (%S+) (%S+) (%S+) (%d) (.*)$')
    expires, wakes, since = tonumber(expires), tonumber(wakes), tonumber(since)
    if not expires or not wakes or not since or expires < now then
      redis.call('HDEL', WAITING, all[i])
    else
      local one = {id = all[i], seq = tonumber(seq), since = since, urgent = is_urgent == '1', label = name, wakes = wakes}
      if expires > now + liveness + margin then
        -- The clock was set back, by more than texts are rounded: it lives as long as any other.
        one.wakes, one.since = math.min(wakes, now), math.min(since, now)
        take_place(one.id, one.seq, now + liveness, one.wakes, one.since, one.urgent, name)
      end
      table.insert(living, one)
    end
  end
  table.sort(living, function(a, b) return a.seq < b.seq end)
  return living
end
local function free_times(foreign_now)
  local times = {}
  local rows = redis.call('ZRANGE', SENT, 0, -1, 'WITHSCORES')
  for i = 2, #rows, 2 do table.insert(times, tonumber(rows[i]) + window) end
  rows = redis.call('ZRANGE', FLYING, 0, -1, 'WITHSCORES')
  for i = 2, #rows, 2 do table.insert(times, math.min(now, tonumber(rows[i]) + flight) + window) end
  for _ = 1, foreign_now do table.insert(times, foreign_until) end
  table.sort(times)
  return times
end
local function free_at(times, index, slots)
  local later = 0
  while index >= #times do
    index = index - math.max(slots, 1)
    later = later + window
  end
  return (index < 0 and now or times[index + 1]) + later
end
"""
)

# ARGV 14..15: grace, turn_s
ADMIT: Final = (
    _BUDGET
    + """
local grace, turn_s = tonumber(ARGV[14]), tonumber(ARGV[15])
local breaker = breaker_of(host)
if breaker.open > now + breaker_open then set_breaker('open', text(now + breaker_open)) end
local retry = breaker_wait(breaker, id)
if retry > 0 then
  redis.call('HDEL', WAITING, id)
  return {'refused', text(retry)}
end
local foreign_now = others()
local used = foreign_now + occupied()
local limit_now, reserve_now = share(cap)
local slots = urgent and limit_now or limit_now - reserve_now

-- A slot is kept for everybody ahead; whoever of them is prompt also goes first.
local living, mine, ahead, before_me, turn = queue(), nil, 0, true, 0
for _, other in ipairs(living) do
  if other.id == id then
    mine = other
    before_me = false
  elseif (other.urgent and not urgent) or (other.urgent == urgent and before_me) then
    ahead = ahead + 1
    if other.wakes >= now - grace then turn = turn + 1 end
  end
end

if used + ahead < slots and turn == 0 then
  redis.call('HDEL', WAITING, id)
  if redis.call('ZADD', FLYING, text(now), id) == 0 then
    -- Granted before and never settled: that request counts too.
    sent(id, now)
  end
  keep(FLYING)
  local minute = math.floor(now / 60)
  redis.call('HINCRBY', USAGE, tostring(minute), 1)
  redis.call('EXPIRE', USAGE, 7200)
  if redis.call('HLEN', USAGE) > 120 then
    for _, field in ipairs(redis.call('HKEYS', USAGE)) do
      if tonumber(field) < minute - 60 then redis.call('HDEL', USAGE, field) end
    end
  end
  if breaker.open > 0 then set_breaker('probe', id, 'probe_until', text(now + flight)) end
  return {'granted', breaker.open > 0 and 1 or 0}
end

local seq, since = mine and mine.seq, mine and mine.since or now
if not seq then
  seq = redis.call('HINCRBY', BUDGET, 'seq', 1)
  redis.call('EXPIRE', BUDGET, 86400)
end
local earliest = free_at(free_times(foreign_now), used + ahead - slots, slots) - now + margin
earliest = math.max(earliest, margin, turn * turn_s)
local pause = math.min(earliest, longest_wait)
take_place(id, seq, now + liveness, now + pause, since, urgent, label)
return {'wait', text(pause), ahead, text(earliest)}
"""
)

# ARGV 14..19: failed, remaining, limit, reset_at (each '' when not known), skew, doubtful
SETTLE: Final = (
    _BUDGET
    + """
local failed, unknown, remaining, told = ARGV[14] == '1', ARGV[14] == '', tonumber(ARGV[15]), tonumber(ARGV[16])
local reset, skew = tonumber(ARGV[17]), tonumber(ARGV[18])
local seen_by = now
if ARGV[19] == '1' then
  seen_by = math.max(now, math.min(tonumber(redis.call('ZSCORE', FLYING, id) or now), now) + flight)
end
redis.call('ZREM', FLYING, id)
sent(id, seen_by)

local breaker = breaker_of(host)
if breaker.open > 0 then
  if breaker.probe == id and unknown then
    set_breaker('probe', '')
  elseif breaker.probe == id then
    set_breaker('failures', 0, 'probe', '', 'open', failed and text(now + breaker_open) or 0)
  end
elseif unknown then
  -- Nobody waited for the end: the breaker learns nothing.
elseif not failed then
  if breaker.failures > 0 then set_breaker('failures', 0) end
else
  set_breaker('failures', breaker.failures + 1)
  if breaker.failures + 1 >= breaker_failures then set_breaker('open', text(now + breaker_open)) end
end

local known_cap, known_foreign, known_until = cap, foreign, foreign_until
if told and told > 0 then cap = told end
if remaining then
  local server_limit = cap > 0 and math.min(cap, limit) or limit
  local count = math.max(0, server_limit - math.max(0, remaining) - occupied())
  local ends = now + window
  if reset and reset >= now - skew then ends = math.min(reset, ends) end
  if ends >= foreign_until + 0.5 then
    foreign, foreign_until = count, ends
  elseif ends > foreign_until - 0.5 then
    foreign = math.max(foreign, count)
  end
end
-- Most answers tell nothing new: then nothing is written, and nothing goes to the replicas.
if cap ~= known_cap then set('cap', cap) end
if foreign ~= known_foreign or (foreign > 0 and foreign_until ~= known_until) then
  set('foreign', foreign, 'until', text(foreign_until))
end
"""
)

LEAVE: Final = (
    _BUDGET
    + """
redis.call('HDEL', WAITING, id)
redis.call('ZREM', FLYING, id)
if breaker_of(host).probe == id then set_breaker('probe', '') end
"""
)

# ARGV 14 and on: the hosts whose breakers are asked for
LIMITS: Final = (
    _BUDGET
    + """
local foreign_now = others()
local used = foreign_now + occupied()
local limit_now, reserve_now = share(cap)
local minute, hour = math.floor(now / 60), 0
local rows = redis.call('HGETALL', USAGE)
for i = 1, #rows, 2 do
  local at = tonumber(rows[i])
  if at > minute - 60 and at <= minute then hour = hour + tonumber(rows[i + 1]) end
end
local reset = 0
if used >= limit_now then
  reset = math.max(0, free_at(free_times(foreign_now), used - limit_now, limit_now) - now)
end
local breakers = {}
for place = 14, #ARGV do
  local breaker = breaker_of(ARGV[place])
  local state = breaker.open == 0 and 'closed' or now < breaker.open and 'open' or 'half-open'
  table.insert(breakers, {state, text(breaker_wait(breaker, ''))})
end
local living, waiting = queue(), {}
for _, kind in ipairs({true, false}) do
  for _, other in ipairs(living) do
    if other.urgent == kind then
      local since = text(math.max(0, now - other.since))
      table.insert(waiting, {other.label, since, kind and 1 or 0})
    end
  end
end
return {limit_now, reserve_now, used, foreign_now, hour, text(reset), breakers, waiting}
"""
)

# ---------------------------------------------------------------------------------------------------------- notes

NOTE: Final = """
local found = redis.call('HMGET', KEYS[1], 'version', 'value')
return {tonumber(found[1] or 0), found[2]}
"""

SET_NOTE: Final = """
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[1] then redis.call('HSET', KEYS[1], 'value', ARGV[1]) else redis.call('HDEL', KEYS[1], 'value') end
return version
"""

FIELDS: Final = "return redis.call('HGETALL', KEYS[1])"

SET_FIELD: Final = """
if ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) else redis.call('HDEL', KEYS[1], ARGV[1]) end
"""
