-- cancelq_claim: take due jobs under a fenced lease: decided and lapsed ones first, then urgent, due, confirmations.
-- Keys: prefix. Arguments: claim id, worker, lease in microseconds, most jobs, most confirmations.
-- Reply: {now, 1 if work is left that may be done now, time of the next work that may be or "", 1 if
-- nothing may be POSTed, 1 if that work waits for its login's budget, {login, its locked_until, stood_still, held_back,
-- ran_dry, ...}, {{field, value, ...} per job}}. A pause, and a ledger that was not compared with the audit since it may
-- have lost data, hold back what would POST; a lock-out or penalty all calls of its login.
-- A job's fields are those before the claim (state, lapsed), plus the claim, its login and, where calls are limited,
-- how many POSTs it may make ("calls": another one in hand only if there is plenty).
-- Data that was lost may have said that a job was POSTed. So what was asked for before the last loss is POSTed only when
-- its order was read after it; where a host's journal may tell of it, a lease later: whoever held it then has sent by
-- now, or never will.
-- Order of writes: calls, lease, claim, then the index is left: a job is never in neither.

local OWNED_PAUSE = 1000000 -- between two looks at an order that another job is at work on

-- From when a read tells what was sent before data was lost.
local function read_from(job, claim)
  return math.max(claim.read_from, tonumber(job.read_from or '0'))
end

-- A job to POST whose order nobody has read since data was lost.
local function is_doubtful(job, claim)
  return job.step == 'post' and tonumber(job.enqueued_at) < claim.loss_at and job.read_since ~= text_of(claim.loss_at)
end

-- To be read instead of POSTed, from `at` on.
local function read_first(prefix, index, job, at)
  write('ZADD', prefix .. ':' .. index_name('confirm', login_of(prefix, job.account)), text_of(at), job.id)
  write('HSET', job_key(prefix, job.id), 'step', 'reconcile', 'state', 'reconciling', 'next_at', text_of(at))
  write('ZREM', prefix .. ':' .. index, job.id)
end

-- Whether this job may go on. One order, one POST in flight: while a later job has the order this one is only read. Once
-- that is over it has the order again, so that who asks again joins it.
local function has_turn(prefix, job)
  local other, own = owner(prefix, job)
  if not other and not own then
    write('SET', order_key(prefix, job.order_id, job.account), job.id)
  end
  return job.step ~= 'post' or not other
end

-- Whether this index entry is a job to take; what only lies there after an error is put right.
local function is_claimable(prefix, index, id, job, claim)
  local entry, now = prefix .. ':' .. index, claim.now
  if not job.state or job.state == 'done' then
    write('ZREM', entry, id)
  elseif job.claim then -- held: only a sweep may take it from its holder
    write('ZADD', prefix .. ':leases', 'NX', text_of(now), id)
    write('ZREM', entry, id)
  elseif index_of(prefix, job) ~= index then
    write('ZADD', prefix .. ':' .. index_of(prefix, job), 'NX', job.next_at or text_of(now), id)
    write('ZREM', entry, id)
  elseif is_doubtful(job, claim) then
    read_first(prefix, index, job, math.max(now, read_from(job, claim)))
  elseif job.step ~= 'close' and not has_turn(prefix, job) then
    read_first(prefix, index, job, now + OWNED_PAUSE)
  else
    return true
  end
end

local function take(prefix, index, id, job, claim)
  write('ZADD', prefix .. ':leases', claim.expiry, id)
  write('HSET', job_key(prefix, id), 'claim', claim.id, 'worker', claim.worker,
    'state', job.step == 'post' and 'claimed' or job.state, unpack(claim.calls))
  if job.step ~= 'post' and claim.loss_at > 0 and claim.now >= read_from(job, claim) then
    write('HSET', job_key(prefix, id), 'read_since', text_of(claim.loss_at))
  end
  write('ZREM', prefix .. ':' .. index, id)
end

-- Up to so many of the jobs `ids`; how many were taken.
local function take_all(prefix, index, ids, login, claim, reply)
  local taken = 0
  for _, id in ipairs(ids) do
    local job, flat = read_job(prefix, id)
    if is_claimable(prefix, index, id, job, claim) then
      take(prefix, index, id, job, claim)
      for _, said in ipairs({'claim', claim.id, 'login', login.name, unpack(claim.calls)}) do
        flat[#flat + 1] = said
      end
      reply[#reply + 1] = flat
      taken = taken + 1
    end
  end
  return taken
end

local function take_due(prefix, index, login, limit, claim, reply)
  local kind = KINDS[index]
  if kind and (login.held_until > claim.now or login.room[kind] < 1 or (kind == 'post' and login.stopped)) then
    return 0
  end
  local room = kind == 'post' and login.room.post or math.huge
  local name, each = index_name(index, login.name), room >= 2 * limit and 2 or 1
  local ids = redis.call('ZRANGEBYSCORE', prefix .. ':' .. name, '-inf', text_of(claim.now), 'LIMIT', 0,
    math.min(limit, room))
  claim.calls = {}
  if room < math.huge then
    claim.calls = {'calls', each .. '@' .. text_of(claim.now)}
    count_calls(login.limits, #ids * each, claim.now + IN_HAND)
  end
  local taken = take_all(prefix, name, ids, login, claim, reply)
  if room < math.huge then
    count_calls(login.limits, (taken - #ids) * each, claim.now + IN_HAND)
    login.room.post = room - taken * each
    login.room.read = login.room.read - taken * each
  end
  return taken
end

local function has_due(prefix, indexes, login, now)
  for _, index in ipairs(indexes) do
    local first = redis.call('ZRANGE', prefix .. ':' .. index_name(index, login.name), 0, 0, 'WITHSCORES')[2]
    if first and tonumber(first) <= now then
      return true
    end
  end
end

-- Due work that waits for a budget is not overdue; while reads wait, the time for proof stands still.
local function note_waiting(prefix, login, now)
  if login.room.read < 1 and has_due(prefix, {'lapsed', 'confirm'}, login, now) then
    prolong(login, 'dry_until', 'ran_dry', login.room.read_at, now)
  end
  if login.room.post < 1 and has_due(prefix, {'urgent', 'due'}, login, now) then
    write('HSET', login.key, 'short_until', text_of(login.room.post_at))
  end
end

local function claim(keys, args)
  local prefix, now = keys[1], micros()
  local wanted, logins, standing, jobs = tonumber(args[4]), logins_in_turn(prefix, now), {}, {}
  for _, login in ipairs(logins) do
    count_hold(login, now, login.stopped)
  end
  local lease, loss_at = tonumber(args[3]), tonumber(meta(prefix, 'loss_at') or '0')
  local read_from = loss_at + (meta(prefix, 'loss_wait') == '1' and lease or 0)
  local claimed = {id = args[1], worker = args[2], now = now, expiry = text_of(now + lease), loss_at = loss_at,
    read_from = read_from}
  for _, index in ipairs(INDEXES) do
    for _, login in ipairs(logins) do
      local holds_sender = index ~= 'closing' and index ~= 'confirm'
      local taken = take_due(prefix, index, login, holds_sender and wanted or tonumber(args[5]), claimed, jobs)
      wanted = holds_sender and wanted - taken or wanted
    end
  end
  local next_at, for_budget = next_work(prefix, logins, now)
  for _, login in ipairs(logins) do
    note_waiting(prefix, login, now)
    for _, said in ipairs({login.name, text_of(login.locked_until), text_of(login.stood_still),
      text_of(held_back(login, now)), text_of(login.ran_dry)}) do
      standing[#standing + 1] = said
    end
  end
  if next_at and next_at <= now then
    ring(prefix, now)
  end
  return {now, next_at and next_at <= now and 1 or 0, next_at and text_of(next_at) or '',
    logins[1].stopped and 1 or 0, for_budget and 1 or 0, standing, jobs}
end

redis.register_function{function_name = 'cancelq_claim', callback = claim, flags = {'allow-oom'}}
