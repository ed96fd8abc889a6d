-- cancelq_settle: give jobs back, with what to do next and when; only under the claim that holds them.
-- Keys: prefix. Arguments: JSON list of {job, claim, step, state, delay_us, posts, activation,
-- fields: {name: text or null}}; posts: how many were really made; activation: of a cancel that is armed, the time that the
-- holder knew to be wanted, "" for none.
-- Reply: per item 1 (done) or 0 (stale claim, or a closing job asked to do anything but close: nothing written).
-- Order of writes: new facts, index, claim, lease. While the claim stands nobody else takes the job, and
-- if the holder dies a lapsed "post" is read before it is sent again.
-- An attempt's row brings the job's row with it: such a job, if nobody joined it, needs no registering.

local function may_settle(job, item)
  return job.claim == item.claim and job.state ~= 'done' and (job.state ~= 'closing' or item.step == 'close')
end

-- When to come back: at once, where a joiner came after its holder had looked and wants an armed cancel earlier.
local function due_at(job, item, now)
  local woken = item.step == 'confirm' and item.activation and item.activation ~= (job.activation_time or '')
  return woken and now or now + item.delay_us
end

-- Whether it is done, and whether it is due.
local function settle_one(prefix, item, now, tally)
  local job = read_job(prefix, item.job)
  if not may_settle(job, item) then
    return 0, false
  end
  local due = due_at(job, item, now)
  local at = text_of(due)
  local changes, removals = sort_fields(item.fields,
    {'step', item.step, 'state', item.state, 'next_at', at}, {'claim', 'worker', 'lapsed', 'lost_by', 'calls'})
  job.step, job.lapsed = item.step, nil
  note_unknown(prefix, job, item.fields.unknown_since)
  write('HSET', job_key(prefix, item.job), unpack(changes))
  write('ZADD', prefix .. ':' .. index_of(prefix, job), at, item.job)
  write('HDEL', job_key(prefix, item.job), unpack(removals))
  report_calls(prefix, job, item.posts or 0, now, tally)
  write('ZREM', prefix .. ':leases', item.job)
  if tonumber(item.fields.attempts or '0') > 0 and tonumber(job.joiners or '0') == 0 then
    write('ZREM', prefix .. ':unregistered', item.job)
  end
  return 1, due <= now
end

local function settle(keys, args)
  local prefix, now, done, due_at_once, tally = keys[1], micros(), {}, false, {}
  local items = cjson.decode(args[1])
  for _, item in ipairs(items) do
    sort_fields(item.fields, {}, {})
  end
  for i, item in ipairs(items) do
    local is_due
    done[i], is_due = settle_one(prefix, item, now, tally)
    due_at_once = due_at_once or is_due
  end
  count_reports(prefix, tally)
  if due_at_once then
    ring(prefix, now)
  end
  return done
end

redis.register_function{function_name = 'cancelq_settle', callback = settle, flags = {'allow-oom'}}
