-- Shared by all functions: keys, time, ids, indexes, the bell. No transition lives here.
-- Functions do not roll back: each reads and validates first, then writes so that every prefix is safe.
-- KEYS[1] is the ledger's prefix, "{cancelq}"; every other key is derived from it, in the same hash slot.
-- Times are whole microseconds of this server's clock: exact in a double until the year 2255.

local VERSION = 2003 -- thousands: generation, programs need the same one; rest: additions
local BELL_CAP = 16 -- one bell per overdue job would grow without end
local FINISHED_LIFE_MS = 3600000 -- a finished job answers status for an hour; then the audit does
local SWEEP_BATCH = 1000 -- leases mended per sweep: bounds the time other clients wait
local INDEXES = {'lapsed', 'urgent', 'due', 'confirm'} -- in order of claim
local READING = {'lapsed', 'confirm'} -- whoever waits here only reads: a pause does not stop them
local made_ids = 0 -- keeps ids apart that are made in the same microsecond

local function micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function text_of(number)
  return string.format('%.0f', number)
end

local function new_id(now, seed)
  made_ids = made_ids + 1
  local milliseconds = math.floor(now / 1000)
  local time = string.format('%012x', milliseconds)
  local fraction = (now - milliseconds * 1000) * 4 + made_ids % 4
  local chance = redis.sha1hex(text_of(now) .. ' ' .. made_ids .. ' ' .. seed)
  local variant = string.format('%x', 8 + tonumber(chance:sub(1, 1), 16) % 4)
  return string.format('%s-%s-7%03x-%s%s-%s', time:sub(1, 8), time:sub(9), fraction,
    variant, chance:sub(2, 4), chance:sub(5, 16))
end

local function job_key(prefix, id)
  return prefix .. ':job:' .. id
end

local function joiners_key(prefix, id)
  return prefix .. ':joiners:' .. id
end

local function order_key(prefix, order_id, account)
  return prefix .. ':order:' .. order_id .. ':' .. account
end

-- The job's fields by name, and the flat list they came in; both empty when there is no such job.
local function read_job(prefix, id)
  local flat = redis.call('HGETALL', job_key(prefix, id))
  local job = {}
  for i = 1, #flat, 2 do
    job[flat[i]] = flat[i + 1]
  end
  return job, flat
end

-- Which index an open, unclaimed job belongs to; an entry in another one is a leftover and means nothing.
-- A lapsed job never has the step "post": see cancelq_sweep.
local function index_of(job)
  if job.lapsed then
    return 'lapsed'
  elseif job.step ~= 'post' then
    return 'confirm'
  end
  return job.priority == 'urgent' and 'urgent' or 'due'
end

local function meta(prefix, name)
  return redis.call('HGET', prefix .. ':meta', name)
end

local function is_paused(prefix)
  return meta(prefix, 'paused_at') and true or false
end

-- The indexes that may be claimed from now.
local function open_indexes(prefix)
  return is_paused(prefix) and READING or INDEXES
end

-- One anonymous Celery message, "something is due"; the message is the smallest that kombu accepts.
local function ring(prefix, now)
  local bells = prefix .. ':bells'
  if redis.call('LLEN', bells) >= BELL_CAP then
    return
  end
  local id = new_id(now, 'bell')
  write('LPUSH', bells, '{"body":"[[],{},{}]","content-type":"application/json","content-encoding":"utf-8",'
    .. '"headers":{"lang":"py","task":"cancelq.bell","id":"' .. id .. '"},'
    .. '"properties":{"body_encoding":"utf-8","delivery_tag":"' .. id .. '",'
    .. '"delivery_info":{"exchange":"","routing_key":' .. cjson.encode(bells) .. '}}}')
end

-- Microseconds of lock-out up to the end of the present one.
local function stood_still(prefix)
  return tonumber(meta(prefix, 'stood_still') or '0')
end

local function lockout_until(prefix)
  return tonumber(meta(prefix, 'lockout_until') or '0')
end

-- Microseconds of pause up to now, without what was lock-out at the same time.
local function held_back(prefix, now)
  local before, paused_at = tonumber(meta(prefix, 'held_back') or '0'), tonumber(meta(prefix, 'paused_at') or '')
  if not paused_at then
    return before
  end
  local locked = stood_still(prefix) - math.max(0, lockout_until(prefix) - now)
  return before + math.max(0, now - paused_at - (locked - tonumber(meta(prefix, 'locked_before'))))
end

-- How many jobs have not ended.
local function count_open(prefix)
  local open = redis.call('ZCARD', prefix .. ':leases')
  for _, index in ipairs(INDEXES) do
    open = open + redis.call('ZCARD', prefix .. ':' .. index)
  end
  return open
end

-- What a holder may write besides the job's step: anything else is the ledger's own.
local HOLDER_FIELDS = {attempts = true, reason = true, command_id = true, first_sent_at = true, memory = true}

-- Split a holder's fields into those to write (appended to `changes`) and those to remove (to `removals`).
local function sort_fields(fields, changes, removals)
  for name, value in pairs(fields or {}) do
    if not HOLDER_FIELDS[name] then
      error('a holder must not write the field ' .. name)
    elseif value == cjson.null then
      removals[#removals + 1] = name
    else
      changes[#changes + 1] = name
      changes[#changes + 1] = value
    end
  end
  return changes, removals
end

-- Let a finished job fade; harmless to repeat. What an error left of it in an index is dropped by the next claim.
local function retire(prefix, job)
  write('PEXPIRE', job_key(prefix, job.id), FINISHED_LIFE_MS)
  write('PEXPIRE', joiners_key(prefix, job.id), FINISHED_LIFE_MS)
  local order = order_key(prefix, job.order_id, job.account)
  if redis.call('GET', order) == job.id then
    write('PEXPIRE', order, FINISHED_LIFE_MS)
  end
  write('ZREM', prefix .. ':unregistered', job.id)
  write('ZREM', prefix .. ':deadlines', job.id)
  write('ZREM', prefix .. ':leases', job.id)
end
