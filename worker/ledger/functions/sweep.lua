-- cancelq_sweep: take lapsed jobs from holders that fell silent, and ring if due work has no bell.
-- Keys: prefix. Arguments: interval in microseconds. No leader: whoever calls first in an interval does it.
-- Reply: {ran, now, 1 if nothing may be POSTed, 1 if drained, lapsed, due, time of the oldest due or "", time of the next
-- due or "", bells (those too many, of which only some are left, included), 1 if the ledger has to be compared with the
-- audit, {login, until, ...} of the lock-outs, time of the oldest unknown or ""}. What waits for a lock-out, a penalty or
-- a budget is due when that is over.
-- A "post" that lapsed may have been sent: it becomes a "reconcile", which reads the order first.

local LONGEST_LOST_BY = 1000 -- bytes: a job whose holders die one after the other must not grow without end

-- The chains of rows of all that held the job since it was last given back; "?" stands for those nobody can name.
local function lost_by(job)
  local before = job.lost_by or (job.lapsed and '?')
  local chain = (job.worker or ''):match('^%S+ (%S+)$') or '?'
  local all = before and before .. ' ' .. chain or chain
  return #all <= LONGEST_LOST_BY and all or '?'
end

-- The holder is gone: order of writes facts, claim, index, lease; each prefix is swept again.
local function take_back(prefix, job, now, tally)
  local may_be_sent, holders = job.step == 'post', lost_by(job)
  local calls = tonumber((job.calls or '0'):match('^%d+'))
  job.lapsed, job.step = '1', may_be_sent and 'reconcile' or job.step
  if may_be_sent and not job.unknown_since then
    write('HSET', job_key(prefix, job.id), 'unknown_since', text_of(now))
    note_unknown(prefix, job, text_of(now))
  end
  write('HSET', job_key(prefix, job.id), 'lapsed', '1', 'lost_by', holders, 'next_at', text_of(now), 'step', job.step,
    'state', may_be_sent and 'reconciling' or job.state)
  write('HDEL', job_key(prefix, job.id), 'claim', 'worker', 'calls')
  write('ZADD', prefix .. ':' .. index_of(prefix, job), text_of(now), job.id)
  report_calls(prefix, job, calls, now, tally)
  write('ZREM', prefix .. ':leases', job.id)
end

-- A lease without a claim is a leftover of an error: the job waits, or is made to wait, in its index.
local function put_in_index(prefix, job, now)
  local index = prefix .. ':' .. index_of(prefix, job)
  write('ZADD', index, 'NX', job.next_at or text_of(now), job.id)
  write('ZREM', prefix .. ':leases', job.id)
end

-- Its deadline came before its turn: nothing may be sent any more, so it is read, paused or not. Not before the ledger
-- was compared: who joined may have given it more time, and be lost.
local function expire(prefix, now)
  local ids = redis.call('ZRANGEBYSCORE', prefix .. ':deadlines', '-inf', text_of(now), 'LIMIT', 0, SWEEP_BATCH)
  for _, id in ipairs(ids) do
    local job = read_job(prefix, id)
    if job.step == 'post' and not job.claim then
      local before, after = index_of(prefix, job), index_name('confirm', login_of(prefix, job.account))
      write('ZADD', prefix .. ':' .. after, text_of(now), id)
      write('HSET', job_key(prefix, id), 'step', 'confirm', 'state', 'confirming', 'next_at', text_of(now))
      write('ZREM', prefix .. ':' .. before, id)
    end
    if not job.claim then -- the holder of a claimed one decides; it comes back here unless it ends
      write('ZREM', prefix .. ':deadlines', id)
    end
  end
end

local function mend_leases(prefix, now)
  local ids = redis.call('ZRANGEBYSCORE', prefix .. ':leases', '-inf', text_of(now), 'LIMIT', 0, SWEEP_BATCH)
  local lapsed, tally = 0, {}
  for _, id in ipairs(ids) do
    local job = read_job(prefix, id)
    if not job.state then
      write('ZREM', prefix .. ':leases', id)
    elseif job.state == 'done' then
      retire(prefix, job)
    elseif job.claim then
      take_back(prefix, job, now, tally)
      lapsed = lapsed + 1
    else
      put_in_index(prefix, job, now)
    end
  end
  count_reports(prefix, tally)
  return lapsed
end

-- One bell is as good as many, and foreign messages are none: a storm must cost nobody's time. How many there were.
local function calm_bells(prefix)
  local bells = count_bells(prefix)
  if not bells then -- no list: no bell rings before it is gone. PEXPIRE, because a worker needs no DEL otherwise
    write('PEXPIRE', prefix .. ':bells', 0)
    return 0
  elseif bells > BELL_STORM then
    write('LTRIM', prefix .. ':bells', -BELL_CAP, -1)
  end
  return bells
end

local function sweep(keys, args)
  local prefix, now = keys[1], micros()
  local swept_at = tonumber(meta(prefix, 'swept_at') or '0')
  local uncompared = is_compared(prefix) and 0 or 1
  local held = uncompared == 1 or is_paused(prefix)
  local stopped = held and 1 or 0
  local drained = uncompared == 0 and meta(prefix, 'draining') and count_open(prefix) == 0 and 1 or 0
  if math.abs(now - swept_at) < tonumber(args[1]) then -- a clock that was set back must not stop sweeping
    return {0, now, stopped, drained, 0, 0, '', '', 0, uncompared, lockouts(prefix, now), oldest_unknown(prefix)}
  end
  write('HSET', prefix .. ':meta', 'swept_at', text_of(now))
  count_holds(prefix, now, held)
  local lapsed = mend_leases(prefix, now)
  if uncompared == 0 then
    expire(prefix, now)
  end
  local due, oldest, next_due = look_around(prefix, now)
  local bells = calm_bells(prefix)
  if due > 0 and bells == 0 then
    ring(prefix, now)
    bells = 1
  end
  return {1, now, stopped, drained, lapsed, due, oldest and text_of(oldest) or '', next_due and text_of(next_due) or '',
    bells, uncompared, lockouts(prefix, now), oldest_unknown(prefix)}
end

redis.register_function{function_name = 'cancelq_sweep', callback = sweep, flags = {'allow-oom'}}
