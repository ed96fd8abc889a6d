-- A server that was restarted, emptied, or that took over from another may have lost what came last. Until a worker has
-- compared it with the audit nothing is POSTed: see is_held. One worker compares: it begins, puts jobs back page by page,
-- and says that it is done. Its note dies with the data, so a ledger that is emptied meanwhile is compared anew.
-- {..}:meta keeps loss_at, when data was last found lost, or perhaps lost, and loss_wait, whether a holder that nobody
-- knows of any more may still be sending: see cancelq_claim.

local COMPARER = '^(%S+) (%S+ %S+) (%d+)$' -- the note: who compares, which server, until when it counts

local function comparer(prefix)
  return (meta(prefix, 'comparing') or ''):match(COMPARER)
end

local function note_comparer(prefix, who, life)
  write('HSET', prefix .. ':meta', 'comparing', who .. ' ' .. identity() .. ' ' .. text_of(micros() + tonumber(life)))
end

local function is_comparing(prefix, who)
  local known, server = comparer(prefix)
  return known == who and server == identity()
end

-- cancelq_compare: begin, unless there is nothing to compare or another worker is at it.
-- Keys: prefix. Arguments: who, life of the note in microseconds. Reply: 1 or 0.
local function compare(keys, args)
  local prefix = keys[1]
  local known, server, ends = comparer(prefix)
  -- Who compared when this server died may not go on, so nobody waits for the end of that one's note.
  local by_another = known and known ~= args[1] and server == identity() and tonumber(ends) > micros()
  if is_compared(prefix) or by_another then
    return 0
  end
  note_comparer(prefix, args[1], args[2])
  return 1
end

-- Order of writes: index, deadline, order, joiners, request ids, and the job last: until it stands they mean nothing,
-- and are written again. A later request may have the order by now: then this job waits for that one to end, and that one
-- for as long as a POST of this job may still be on its way.
local function put_back(prefix, item, now)
  local job, id, at = item.job, item.job.id, text_of(now + item.delay_us)
  local flat = {'lapsed', '1', 'state', 'reconciling', 'step', 'reconcile', 'next_at', at}
  for name, value in pairs(job) do
    flat[#flat + 1], flat[#flat + 2] = name, value
  end
  write('ZADD', prefix .. ':' .. index_name('lapsed', login_of(prefix, job.account)), at, id)
  if job.deadline then
    write('ZADD', prefix .. ':deadlines', job.deadline, id)
  end
  local other = owner(prefix, job)
  if not other then
    write('SET', order_key(prefix, job.order_id, job.account), id)
  elseif item.delay_us > 0 then
    write('HSET', job_key(prefix, other), 'read_from', at)
  end
  local joiners = joiners_key(prefix, id)
  if #item.joiners > 0 and redis.call('EXISTS', joiners) == 0 then
    write('RPUSH', joiners, unpack(item.joiners))
  end
  for _, request_id in ipairs(item.request_ids) do
    remember(prefix, {requestId = request_id, orderId = job.order_id, account = job.account}, id)
  end
  write('HSET', job_key(prefix, id), unpack(flat))
end

-- The audit knows attempts that the ledger has forgotten: whoever takes it next looks there, and reads the order.
local function fall_back(prefix, job, item, now)
  local before, at = index_of(prefix, job), text_of(now + item.delay_us)
  write('HSET', job_key(prefix, job.id), 'lapsed', '1', 'state', 'reconciling', 'step', 'reconcile', 'next_at', at)
  write('ZADD', prefix .. ':' .. index_name('lapsed', login_of(prefix, job.account)), at, job.id)
  write('ZREM', prefix .. ':' .. before, job.id)
end

local function joined_ids(prefix, id)
  local known = {}
  for _, text in ipairs(redis.call('LRANGE', joiners_key(prefix, id), 0, -1)) do
    known[cjson.decode(text).request_id] = true
  end
  return known
end

local function given(value)
  return value ~= cjson.null and value or nil
end

-- The wishes that the ledger has lost of an open job that it still has; what an end froze stays as it is.
local function join_again(prefix, job, item, now)
  if #item.joiners == 0 or job.state == 'closing' or job.state == 'done' then
    return false
  end
  local known, joined = joined_ids(prefix, job.id), false
  for _, text in ipairs(item.joiners) do
    local wish = cjson.decode(text)
    if not known[wish.request_id] then
      add_joiner(prefix, read_job(prefix, job.id), {requestId = wish.request_id, priority = wish.priority,
        deadline = given(wish.deadline), activationTime = given(wish.activation_time),
        orderId = job.order_id, account = job.account}, text, now)
      joined = true
    end
  end
  return joined
end

-- Whether the next holder would not look into the audit by itself. One in hand lapses, or is settled.
local function is_behind(job, item)
  local unlooked = not job.claim and not job.lapsed and job.step ~= 'close'
  return unlooked and tonumber(job.attempts) < tonumber(item.job.attempts)
end

local function restore_one(prefix, item, now)
  local job = read_job(prefix, item.job.id)
  if not job.state then
    put_back(prefix, item, now)
    return 1
  end
  local joined, behind = join_again(prefix, job, item, now), is_behind(job, item)
  if behind then
    fall_back(prefix, read_job(prefix, job.id), item, now)
  end
  return (joined or behind) and 1 or 0
end

-- Two holders of a job meet at its start row, unless one of them writes into a journal: then that one must have ended.
local function note_loss(prefix, now)
  local wait = '0'
  for i, told in ipairs(redis.call('HGETALL', prefix .. ':heads')) do
    if i % 2 == 0 and told:match('^%d+ %S* %S') then
      wait = '1'
    end
  end
  write('HSET', prefix .. ':meta', 'loss_at', text_of(now), 'loss_wait', wait)
end

local function is_any_lost(prefix, items)
  for _, item in ipairs(items) do
    if redis.call('EXISTS', job_key(prefix, item.job.id)) == 0 then
      return true
    end
  end
end

-- cancelq_restore: jobs that the audit knows as open.
-- Keys: prefix. Arguments: who compares, or "" for jobs of which rows arrived after a comparison; life of the note in
-- microseconds, JSON list of {job: {field: text}, joiners: [text], request_ids: [text], delay_us}.
-- Reply: how many were put right, -1 if it is not for this worker to compare any more.
local function restore(keys, args)
  local prefix, now, restored, items = keys[1], micros(), 0, cjson.decode(args[3])
  if args[1] ~= '' then
    if not is_comparing(prefix, args[1]) then
      return -1
    end
    note_comparer(prefix, args[1], args[2])
    if is_any_lost(prefix, items) then
      note_loss(prefix, now)
    end
  end
  for _, item in ipairs(items) do
    restored = restored + restore_one(prefix, item, now)
  end
  return restored
end

-- cancelq_compared: the whole of the audit was looked at. Keys: prefix. Arguments: who. Reply: 1, or 0 as -1 above.
local function compared(keys, args)
  local prefix, now, before = keys[1], micros(), meta(keys[1], 'compared')
  if not is_comparing(prefix, args[1]) then
    return 0
  end
  if before and before ~= identity() then -- else it is new, or was emptied: nothing in it is from before
    note_loss(prefix, now)
  end
  write('HSET', prefix .. ':meta', 'compared', identity())
  write('HDEL', prefix .. ':meta', 'comparing')
  count_holds(prefix, now, is_paused(prefix))
  if (next_work(prefix, logins_in_turn(prefix, now), now) or math.huge) <= now then
    ring(prefix, now)
  end
  return 1
end

redis.register_function{function_name = 'cancelq_compare', callback = compare, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_restore', callback = restore, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_compared', callback = compared, flags = {'allow-oom'}}
