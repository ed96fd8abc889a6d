-- cancelq_close: decide the end of held jobs: joiners are frozen and given back, the order is free from here.
-- Keys: prefix. Arguments: JSON list of {job, claim, outcome, evidence, deadline, posts,
-- fields: {name: text or null}}; deadline: the one that the holder knew of, "" for none; posts: see cancelq_settle.
-- Reply: per item 0 (not closed: stale claim, or wanted for longer) or the list of its joiners, each a JSON text.
-- An end that was decided before stays as it is; repeating is harmless.

-- A joiner gave the job more time after its holder had looked: "unresolved" was said too early.
local function is_wanted_longer(job, item)
  local known = item.deadline or job.deadline or '' -- older workers do not say
  return item.outcome == 'unresolved' and (job.deadline or '') ~= known
end

local function close_one(prefix, item, tally)
  local job = read_job(prefix, item.job)
  if job.claim ~= item.claim or job.state == 'done' then
    return 0
  end
  if job.state ~= 'closing' and is_wanted_longer(job, item) then
    write('ZADD', prefix .. ':leases', text_of(micros()), item.job) -- as if lapsed: the order is read again
    return 0
  end
  if job.state ~= 'closing' then
    local changes, removals = sort_fields(item.fields, {'step', 'close', 'state', 'closing',
      'outcome', item.outcome, 'evidence', item.evidence}, {'calls'})
    write('HSET', job_key(prefix, item.job), unpack(changes))
    write('HDEL', job_key(prefix, item.job), unpack(removals))
    report_calls(prefix, job, item.posts or 0, micros(), tally)
  end
  return redis.call('LRANGE', joiners_key(prefix, item.job), 0, -1)
end

local function close(keys, args)
  local items, replies, tally = cjson.decode(args[1]), {}, {}
  for _, item in ipairs(items) do
    sort_fields(item.fields, {}, {})
  end
  for i, item in ipairs(items) do
    replies[i] = close_one(keys[1], item, tally)
  end
  count_reports(keys[1], tally)
  return replies
end

redis.register_function{function_name = 'cancelq_close', callback = close, flags = {'allow-oom'}}
