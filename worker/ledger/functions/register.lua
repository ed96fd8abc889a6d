-- cancelq_unregistered: jobs (and joiners) that the audit may not know yet, oldest first.
-- Keys: prefix. Arguments: limit, least age in microseconds. Reply: {{job field, value, ...}, {joiner, ...}} each.
local function unregistered(keys, args)
  local prefix, found = keys[1], {}
  local latest = text_of(micros() - tonumber(args[2]))
  local ids = redis.call('ZRANGEBYSCORE', prefix .. ':unregistered', '-inf', latest, 'LIMIT', 0, args[1])
  for _, id in ipairs(ids) do
    local job, flat = read_job(prefix, id)
    if job.state then
      found[#found + 1] = {flat, redis.call('LRANGE', joiners_key(prefix, id), 0, -1)}
    else
      write('ZREM', prefix .. ':unregistered', id)
    end
  end
  return found
end

-- cancelq_registered: the audit has these jobs with so many joiners; a joiner that came since keeps its job listed. Where
-- their rows are in the database that all share, and not in a journal, the jobs that are still here note it ("recorded"):
-- no start row brings the job's row again.
-- Keys: prefix. Arguments: job id, joiners seen, ..., and "shared" if the rows are in the database. Reply: the jobs that the
-- ledger does not have any more.
local function registered(keys, args)
  local prefix, gone = keys[1], {}
  local shared = args[#args] == 'shared'
  for i = 1, #args - (shared and 1 or 0), 2 do
    if redis.call('EXISTS', job_key(prefix, args[i])) == 0 then
      gone[#gone + 1] = args[i]
    elseif shared then
      write('HSET', job_key(prefix, args[i]), 'recorded', '1')
    end
    if redis.call('LLEN', joiners_key(prefix, args[i])) == tonumber(args[i + 1]) then
      write('ZREM', prefix .. ':unregistered', args[i])
    end
  end
  return gone
end

redis.register_function{function_name = 'cancelq_unregistered', callback = unregistered, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_registered', callback = registered, flags = {'allow-oom'}}
