-- cancelq_finish: the outcome is in the audit: the job leaves the leases and fades.
-- Keys: prefix. Arguments: JSON list of {job, claim, outcome, evidence, finished_at in microseconds as text}.
-- Reply: per item 1 or 0 (stale claim, nothing written). Repeating under the same claim gives 1 again.
-- The lease goes last: after an error in between, the sweep completes the rest.

local ALARMING = {unresolved = true, refused = true}

local function tell(prefix, job, item)
  raise_alert(prefix, micros(), '{"event":"' .. item.outcome .. '","jobId":"' .. job.id .. '","account":'
    .. cjson.encode(job.account) .. ',"orderId":' .. job.order_id .. ',"requestedBy":'
    .. (job.requested_by and cjson.encode(job.requested_by) or 'null') .. ',"evidence":'
    .. cjson.encode(item.evidence) .. ',"attempts":' .. job.attempts .. '}')
end

local function finish_one(prefix, item)
  local job = read_job(prefix, item.job)
  if job.claim ~= item.claim then
    return 0
  end
  local as_meant = item.evidence:match('^%S+') == 'dry_run' -- a dry run leaves what is open open: nobody needs to hear
  if ALARMING[item.outcome] and not as_meant and job.state ~= 'done' then
    tell(prefix, job, item)
  end
  write('HSET', job_key(prefix, item.job), 'state', 'done', 'step', 'close', 'outcome', item.outcome,
    'evidence', item.evidence, 'finished_at', item.finished_at)
  retire(prefix, job)
  return 1
end

local function finish(keys, args)
  local replies = {}
  for i, item in ipairs(cjson.decode(args[1])) do
    replies[i] = finish_one(keys[1], item)
  end
  return replies
end

redis.register_function{function_name = 'cancelq_finish', callback = finish, flags = {'allow-oom'}}
