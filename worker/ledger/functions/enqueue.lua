-- cancelq_enqueue: store one wish to cancel one order, or join the open one of that order.
-- Keys: prefix. Arguments: the request as one JSON object. Reply: JSON, see "refused" and "receipt".
-- cancelq_redrive: the same for a job that ended badly, whose id is the second argument; the order is read first.
-- Order of writes: indexes, order, then the job itself. Until the job stands, what was written means nothing:
-- claims drop an id without a job, an order that points to no job is free. From then on the wish is safe.

local function fresh_job_id(prefix, request, now)
  local id
  repeat
    id = new_id(now, request.requestId .. ' ' .. request.account .. ' ' .. request.orderId)
  until redis.call('EXISTS', job_key(prefix, id)) == 0
  return id
end

local DRAINING = 'the ledger is being drained and takes no new requests; `cancelq resume` opens it again'

local function accept(prefix, request, now, redrive_of)
  local id, at = fresh_job_id(prefix, request, now), text_of(now)
  local job = {
    'id', id, 'account', request.account, 'order_id', request.orderId, 'request_id', request.requestId,
    'is_automated', request.isAutomated, 'priority', request.priority,
    'state', redrive_of and 'reconciling' or 'queued', 'step', redrive_of and 'reconcile' or 'post', 'attempts', '0', 'joiners', '0', 'enqueued_at', at, 'next_at', at,
  }
  local optional = {
    cl_ord_id = request.clOrdId, custom_tag50 = request.customTag50, requested_by = request.requestedBy,
    activation_time = request.activationTime and text_of(request.activationTime),
    deadline = request.deadline and text_of(request.deadline), redrive_of = redrive_of,
  }
  for name, value in pairs(optional) do
    job[#job + 1], job[#job + 2] = name, value
  end
  local index = index_of(prefix, {step = redrive_of and 'reconcile' or 'post',
    priority = request.priority, account = request.account})
  write('ZADD', prefix .. ':' .. index, at, id)
  write('ZADD', prefix .. ':unregistered', at, id)
  if request.deadline then
    write('ZADD', prefix .. ':deadlines', text_of(request.deadline), id)
  end
  write('SET', order_key(prefix, request.orderId, request.account), id)
  write('HSET', job_key(prefix, id), unpack(job))
  remember(prefix, request, id)
  ring(prefix, now)
  return receipt(prefix, 'accepted', request, id, now)
end

local function repeated(prefix, request, seen, now)
  local job_id, order_id, account = seen:match('^(%S+) (%d+) (.*)$')
  if order_id == request.orderId and account == request.account then
    return receipt(prefix, 'duplicate', request, job_id, now)
  end
  return refused('requestId: was used for order ' .. order_id .. ' of account ' .. cjson.encode(account)
    .. ' before', request.requestId)
end

-- The job that works on this order, unless its end is decided already.
local function open_job(prefix, request)
  local id = redis.call('GET', order_key(prefix, request.orderId, request.account))
  local job = id and read_job(prefix, id) or {}
  if job.state and job.state ~= 'closing' and job.state ~= 'done' then
    return job
  end
end

local function admit(keys, args, redrive_of)
  local prefix, now = keys[1], micros()
  local wrong = misuse(keys, args, redrive_of and 2 or 1)
  local request, why, request_id = read_request(args[1] or '', now)
  if wrong or not request then
    return refused(wrong or why, request and request.requestId or request_id)
  end
  request.requestId = request.requestId
    or new_id(now, 'request ' .. request.account .. ' ' .. request.orderId)
  local seen = redis.call('GET', prefix .. ':request:' .. request.requestId)
  if seen then
    return repeated(prefix, request, seen, now)
  end
  if meta(prefix, 'draining') then
    return refused(DRAINING, request.requestId)
  end
  local open = open_job(prefix, request)
  if open then
    return join(prefix, open, request, now)
  end
  return accept(prefix, request, now, redrive_of)
end

local function enqueue(keys, args)
  return admit(keys, args)
end

local function redrive(keys, args)
  return admit(keys, args, args[2])
end

redis.register_function('cancelq_enqueue', enqueue)
redis.register_function('cancelq_redrive', redrive)
