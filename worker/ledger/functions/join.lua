-- The joining half of cancelq_enqueue: record a further wish for an order whose cancel is open.
-- The widest wish wins: highest priority, latest deadline (none = endless), earliest activation (none = now).
-- Before a first widening the job keeps what its own request said: the audit tells each wish as it was made.
-- The request id is remembered last: a repetition after an error joins again instead of believing it did.

local JOINERS_CAP = 1000 -- one order's wishes; more is a loop in the producer

local function joiner_text(request, now)
  return '{"request_id":' .. cjson.encode(request.requestId)
    .. ',"requested_by":' .. (request.requestedBy and cjson.encode(request.requestedBy) or 'null')
    .. ',"priority":"' .. request.priority
    .. '","deadline":' .. (request.deadline and text_of(request.deadline) or 'null')
    .. ',"activation_time":' .. (request.activationTime and text_of(request.activationTime) or 'null')
    .. ',"requested_at":' .. text_of(now) .. '}'
end

-- What the joiner changes in the job: fields to write, names to remove.
local function widened(job, request, count)
  local changes, removals = {'joiners', text_of(count)}, {}
  local function widen(name, wish, is_wider)
    if job[name] and not wish then
      removals[#removals + 1] = name
    elseif job[name] and is_wider(wish, tonumber(job[name])) then
      changes[#changes + 1], changes[#changes + 2] = name, text_of(wish)
    end
  end
  widen('deadline', request.deadline, function(wish, stored) return wish > stored end)
  widen('activation_time', request.activationTime, function(wish, stored) return wish < stored end)
  if request.priority == 'urgent' and job.priority ~= 'urgent' then
    changes[#changes + 1], changes[#changes + 2] = 'priority', 'urgent'
  end
  return changes, removals
end

-- '' stands for none, so that all three fields are there or none is.
local function keep_first_wish(prefix, job)
  if not job.first_priority then
    write('HSET', job_key(prefix, job.id), 'first_priority', job.priority,
      'first_deadline', job.deadline or '', 'first_activation_time', job.activation_time or '')
  end
end

-- An earlier activation, or none: what was armed at the exchange for later is asked for again at once.
local function wake(prefix, job, now)
  if job.step == 'confirm' and not job.claim then
    write('HSET', job_key(prefix, job.id), 'next_at', text_of(now))
    write('ZADD', prefix .. ':' .. index_of(prefix, job), text_of(now), job.id)
  end
end

-- The latest deadline counts; while a job has one it stands among the deadlines.
local function move_deadline(prefix, job, wish)
  if job.deadline and not wish then
    write('ZREM', prefix .. ':deadlines', job.id)
  elseif job.deadline and wish > tonumber(job.deadline) then
    write('ZADD', prefix .. ':deadlines', text_of(wish), job.id)
  end
end

-- A job that became urgent moves up at once, if it waits among the others.
local function move_up(prefix, job)
  local due = prefix .. ':' .. index_name('due', login_of(prefix, job.account))
  local waiting = redis.call('ZSCORE', due, job.id)
  if waiting and not job.claim and job.priority ~= 'urgent' then
    job.priority = 'urgent'
    write('ZADD', prefix .. ':' .. index_of(prefix, job), waiting, job.id)
    write('ZREM', due, job.id)
  end
end

local function ring_if_due(prefix, job, now)
  local due = redis.call('ZSCORE', prefix .. ':' .. index_of(prefix, job), job.id)
  if due and tonumber(due) <= now then
    ring(prefix, now)
  end
end

-- One more wish, with the text that tells it, and what it widens.
local function add_joiner(prefix, job, request, text, now)
  local joiners = joiners_key(prefix, job.id)
  local changes, removals = widened(job, request, redis.call('LLEN', joiners) + 1)
  write('RPUSH', joiners, text)
  write('ZADD', prefix .. ':unregistered', text_of(now), job.id)
  if #changes > 2 or #removals > 0 then -- more than the count of joiners
    keep_first_wish(prefix, job)
  end
  write('HSET', job_key(prefix, job.id), unpack(changes))
  if #removals > 0 then
    write('HDEL', job_key(prefix, job.id), unpack(removals))
  end
  move_deadline(prefix, job, request.deadline)
  if request.priority == 'urgent' then
    move_up(prefix, job)
  end
  if job.activation_time and (not request.activationTime or request.activationTime < tonumber(job.activation_time)) then
    wake(prefix, job, now)
  end
  remember(prefix, request, job.id)
end

local function join(prefix, job, request, now)
  if redis.call('LLEN', joiners_key(prefix, job.id)) >= JOINERS_CAP then
    return refused('orderId: ' .. JOINERS_CAP .. ' requests have joined the open cancel of this order already',
      request.requestId)
  end
  add_joiner(prefix, job, request, joiner_text(request, now), now)
  ring_if_due(prefix, job, now)
  return receipt(prefix, 'joined', request, job.id, now)
end
