-- cancelq_sweep: take lapsed jobs from holders that fell silent, and ring if due work has no bell.
-- Keys: prefix. Arguments: interval in microseconds. No leader: whoever calls first in an interval does it.
-- Reply: {ran, now, 1 if paused, 1 if drained, lapsed, due, time of the oldest due or "", time of the next due
-- or "", bells}.
-- A "post" that lapsed may have been sent: it becomes a "reconcile", which reads the order first.

-- The holder is gone: order of writes facts, claim, index, lease; each prefix is swept again.
local function take_back(prefix, job, now)
  local may_be_sent = job.step == 'post'
  write('HSET', job_key(prefix, job.id), 'lapsed', '1', 'next_at', text_of(now),
    'step', may_be_sent and 'reconcile' or job.step, 'state', may_be_sent and 'reconciling' or job.state)
  write('HDEL', job_key(prefix, job.id), 'claim', 'worker')
  write('ZADD', prefix .. ':lapsed', text_of(now), job.id)
  write('ZREM', prefix .. ':leases', job.id)
end

-- A lease without a claim is a leftover of an error: the job waits, or is made to wait, in its index.
local function put_back(prefix, job, now)
  local index = prefix .. ':' .. index_of(job)
  write('ZADD', index, 'NX', job.next_at or text_of(now), job.id)
  write('ZREM', prefix .. ':leases', job.id)
end

-- Its deadline came before its turn: nothing may be sent any more, so it is read, paused or not.
local function expire(prefix, now)
  local ids = redis.call('ZRANGEBYSCORE', prefix .. ':deadlines', '-inf', text_of(now), 'LIMIT', 0, SWEEP_BATCH)
  for _, id in ipairs(ids) do
    local job = read_job(prefix, id)
    if job.step == 'post' and not job.claim then
      local before = index_of(job)
      write('ZADD', prefix .. ':confirm', text_of(now), id)
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
  local lapsed = 0
  for _, id in ipairs(ids) do
    local job = read_job(prefix, id)
    if not job.state then
      write('ZREM', prefix .. ':leases', id)
    elseif job.state == 'done' then
      retire(prefix, job)
    elseif job.claim then
      take_back(prefix, job, now)
      lapsed = lapsed + 1
    else
      put_back(prefix, job, now)
    end
  end
  return lapsed
end

-- How many jobs are due, since when, and when the first of the others will be.
local function look_around(prefix, now)
  local due, oldest, next_due = 0, nil, nil
  for _, name in ipairs(open_indexes(prefix)) do
    local index = prefix .. ':' .. name
    local count = redis.call('ZCOUNT', index, '-inf', text_of(now))
    local first = tonumber(redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')[2])
    local later = tonumber(redis.call('ZRANGE', index, count, count, 'WITHSCORES')[2])
    due = due + count
    if count > 0 and (not oldest or first < oldest) then
      oldest = first
    end
    if later and (not next_due or later < next_due) then
      next_due = later
    end
  end
  return due, oldest, next_due
end

local function sweep(keys, args)
  local prefix, now = keys[1], micros()
  local swept_at = tonumber(meta(prefix, 'swept_at') or '0')
  local paused = is_paused(prefix) and 1 or 0
  local drained = meta(prefix, 'draining') and count_open(prefix) == 0 and 1 or 0
  if math.abs(now - swept_at) < tonumber(args[1]) then -- a clock that was set back must not stop sweeping
    return {0, now, paused, drained, 0, 0, '', '', 0}
  end
  write('HSET', prefix .. ':meta', 'swept_at', text_of(now))
  local lapsed = mend_leases(prefix, now)
  expire(prefix, now)
  local due, oldest, next_due = look_around(prefix, now)
  if due > 0 and redis.call('LLEN', prefix .. ':bells') == 0 and lockout_until(prefix) <= now then
    ring(prefix, now)
  end
  return {1, now, paused, drained, lapsed, due, oldest and text_of(oldest) or '', next_due and text_of(next_due) or '',
    redis.call('LLEN', prefix .. ':bells')}
end

redis.register_function{function_name = 'cancelq_sweep', callback = sweep, flags = {'allow-oom'}}
