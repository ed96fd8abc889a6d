-- Shared by all functions: keys, time, ids, indexes, the bell. No transition lives here.
-- Functions do not roll back: each reads and validates first, then writes so that every prefix is safe.
-- KEYS[1] is the ledger's prefix, "{cancelq}"; every other key is derived from it, in the same hash slot.
-- Times are whole microseconds of this server's clock: exact in a double until the year 2255.

local VERSION = 3019 -- thousands: generation, programs need the same one; rest: additions
local BELL_CAP = 16 -- one bell per overdue job would grow without end
local BELL_STORM = 1000 -- nobody rings so often but somebody gone wild: the rest is cut off
local FINISHED_LIFE_MS = 3600000 -- a finished job answers status for an hour; then the audit does
local SWEEP_BATCH = 1000 -- leases mended per sweep: bounds the time other clients wait
local INDEXES = {'closing', 'lapsed', 'urgent', 'due', 'confirm'} -- in order of claim; each login has its own
local newest_at, made_then = 0, 0 -- of the newest id: its microsecond, and how many before it in the same one

local function micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function text_of(number)
  return string.format('%.0f', number)
end

-- Ids sort by when they were made, also when the clock was set back: then they count on from the newest one that was
-- made since the library was loaded.
local function new_id(now, seed)
  if now > newest_at then
    newest_at, made_then = now, 0
  elseif made_then < 3 then
    made_then = made_then + 1
  else
    newest_at, made_then = newest_at + 1, 0
  end
  local milliseconds = math.floor(newest_at / 1000)
  local time = string.format('%012x', milliseconds)
  local fraction = (newest_at - milliseconds * 1000) * 4 + made_then
  local chance = redis.sha1hex(text_of(newest_at) .. ' ' .. made_then .. ' ' .. seed)
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

local function meta(prefix, name)
  return redis.call('HGET', prefix .. ':meta', name)
end

local function is_draining(prefix)
  return meta(prefix, 'draining') and true or false
end

local function is_paused(prefix)
  return meta(prefix, 'paused_at') and true or false
end

-- Which server this is, and which history its data has: another process, or another master's data, is another one.
local function identity()
  local info = redis.call('INFO', 'server', 'replication')
  return info:match('run_id:(%x+)') .. ' ' .. info:match('master_replid:(%x+)')
end

local function is_compared(prefix)
  return meta(prefix, 'compared') == identity()
end

-- Whether nothing may be POSTed: an operator paused the ledger, or it was not compared with the audit yet.
local function is_held(prefix)
  return is_paused(prefix) or not is_compared(prefix)
end

-- How many messages lie in the bells' queue; nil if somebody wrote something else to its key, which the sweep removes.
local function count_bells(prefix)
  local count = redis.pcall('LLEN', prefix .. ':bells')
  if type(count) == 'table' and not count.err:find('WRONGTYPE', 1, true) then
    error(count.err)
  end
  return type(count) == 'number' and count or nil
end

-- One anonymous Celery message, "something is due"; the message is the smallest that kombu accepts.
local function ring(prefix, now)
  local bells = prefix .. ':bells'
  if (count_bells(prefix) or BELL_CAP) >= BELL_CAP then
    return
  end
  local id = new_id(now, 'bell')
  write('LPUSH', bells, '{"body":"[[],{},{}]","content-type":"application/json","content-encoding":"utf-8",'
    .. '"headers":{"lang":"py","task":"cancelq.bell","id":"' .. id .. '"},'
    .. '"properties":{"body_encoding":"utf-8","delivery_tag":"' .. id .. '",'
    .. '"delivery_info":{"exchange":"","routing_key":' .. cjson.encode(bells) .. '}}}')
end

-- The other open job that has this job's order, as after a restart without data: it was asked for before this one
-- was put back. Nil if the order is this job's own, or free; then whether it is its own.
local function owner(prefix, job)
  local id = redis.call('GET', order_key(prefix, job.order_id, job.account))
  local own = id == job.id
  local state = id and not own and redis.call('HGET', job_key(prefix, id), 'state')
  return state and state ~= 'closing' and state ~= 'done' and id or nil, own
end

-- What a holder may write besides the job's step: anything else is the ledger's own.
local HOLDER_FIELDS = {attempts = true, reason = true, command_id = true, first_sent_at = true, memory = true,
  unknown_since = true, recorded = true}

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

-- {..}:unknown has the jobs of which nobody knows whether a POST reached the exchange, by the time since when.
local function note_unknown(prefix, job, since)
  if since and since ~= cjson.null then
    write('ZADD', prefix .. ':unknown', since, job.id)
  elseif job.unknown_since then
    write('ZREM', prefix .. ':unknown', job.id)
  end
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
  if job.unknown_since then
    write('ZREM', prefix .. ':unknown', job.id)
  end
  write('ZREM', prefix .. ':leases', job.id)
end
