-- cancelq_claim: take due jobs under a fenced lease: lapsed ones first, then urgent, due, confirmations.
-- Keys: prefix. Arguments: claim id, worker, lease in microseconds, most jobs, most confirmations.
-- Reply: {now, 1 if due work is left, time of the next due work or "", microseconds of all lock-outs,
-- microseconds of all pauses, 1 if paused, then {field, value, ...} per job}. A pause holds back what would POST.
-- A job's fields are those before the claim (state, lapsed), plus the claim.
-- Order of writes: lease, claim, then the index is left: a job is never in neither.

-- Whether this index entry is a job to take; what only lies there after an error is put right.
local function is_claimable(prefix, index, id, job, now)
  local entry = prefix .. ':' .. index
  if not job.state or job.state == 'done' then
    write('ZREM', entry, id)
  elseif job.claim then -- held: only a sweep may take it from its holder
    write('ZADD', prefix .. ':leases', 'NX', text_of(now), id)
    write('ZREM', entry, id)
  elseif index_of(job) ~= index then
    write('ZADD', prefix .. ':' .. index_of(job), 'NX', job.next_at or text_of(now), id)
    write('ZREM', entry, id)
  else
    return true
  end
end

local function take(prefix, index, id, job, claim)
  write('ZADD', prefix .. ':leases', claim.expiry, id)
  write('HSET', job_key(prefix, id), 'claim', claim.id, 'worker', claim.worker,
    'state', job.step == 'post' and 'claimed' or job.state)
  write('ZREM', prefix .. ':' .. index, id)
end

local function take_due(prefix, index, limit, claim, reply)
  local ids = redis.call('ZRANGEBYSCORE', prefix .. ':' .. index, '-inf', text_of(claim.now), 'LIMIT', 0, limit)
  local taken = 0
  for _, id in ipairs(ids) do
    local job, flat = read_job(prefix, id)
    if is_claimable(prefix, index, id, job, claim.now) then
      take(prefix, index, id, job, claim)
      flat[#flat + 1], flat[#flat + 2] = 'claim', claim.id
      reply[#reply + 1] = flat
      taken = taken + 1
    end
  end
  return taken
end

-- The earliest time at which any unclaimed job is due; nil when there is none.
local function earliest(prefix)
  local first
  for _, index in ipairs(open_indexes(prefix)) do
    local entry = redis.call('ZRANGE', prefix .. ':' .. index, 0, 0, 'WITHSCORES')
    local at = tonumber(entry[2])
    if at and (not first or at < first) then
      first = at
    end
  end
  return first
end

local function claim(keys, args)
  local prefix, now = keys[1], micros()
  local wanted, locked, paused = tonumber(args[4]), lockout_until(prefix), is_paused(prefix)
  local reply = {now, 0, '', text_of(stood_still(prefix)), text_of(held_back(prefix, now)), paused and 1 or 0}
  if locked > now then
    reply[3] = text_of(locked)
    return reply
  end
  local claimed = {id = args[1], worker = args[2], now = now, expiry = text_of(now + tonumber(args[3]))}
  for _, index in ipairs(paused and {'lapsed'} or {'lapsed', 'urgent', 'due'}) do
    wanted = wanted - take_due(prefix, index, wanted, claimed, reply)
  end
  take_due(prefix, 'confirm', tonumber(args[5]), claimed, reply)
  local next_due = earliest(prefix)
  if next_due and next_due <= now then
    reply[2] = 1
    ring(prefix, now)
  end
  reply[3] = next_due and text_of(next_due) or ''
  return reply
end

redis.register_function{function_name = 'cancelq_claim', callback = claim, flags = {'allow-oom'}}
