-- cancelq_status: what the ledger knows about one job, or about the newest job of an order.
-- Keys: prefix. Arguments: JSON {jobId} or {orderId, account}. Reply: JSON, every key always present.

local STATUS_FIELDS = {jobId = text_up_to(64), orderId = order_id, account = text_up_to(64)}

local function quoted(value)
  return value and cjson.encode(value) or 'null'
end

local function time(value)
  return value and '"' .. iso_of_micros(tonumber(value)) .. '"' or 'null'
end

-- Digits go out as they are stored: cjson would round them.
-- An outcome is told once it is on record, not while a closing job still carries it there.
local function describe(job)
  local done = job.state == 'done'
  local waits = not job.claim and not done
  return '{"jobId":' .. quoted(job.id) .. ',"account":' .. quoted(job.account) .. ',"orderId":' .. job.order_id
    .. ',"state":' .. quoted(job.state) .. ',"attempts":' .. job.attempts .. ',"reason":' .. quoted(job.reason)
    .. ',"commandId":' .. (job.command_id or 'null') .. ',"joiners":' .. job.joiners
    .. ',"enqueuedAt":' .. time(job.enqueued_at) .. ',"firstSentAt":' .. time(job.first_sent_at)
    .. ',"nextAt":' .. time(waits and job.next_at) .. ',"deadline":' .. time(job.deadline)
    .. ',"finishedAt":' .. time(job.finished_at) .. ',"outcome":' .. quoted(done and job.outcome)
    .. ',"evidence":' .. quoted(done and job.evidence) .. '}'
end

local function status(keys, args)
  local prefix, wrong = keys[1], misuse(keys, args, 1)
  local wanted, why = read_fields(args[1] or '', STATUS_FIELDS, 0)
  if wrong then
    return refused(wrong)
  elseif not wanted then
    return refused(why)
  elseif (wanted.jobId == nil) == (wanted.orderId == nil) or (wanted.jobId and wanted.account) then
    return refused('jobId: give either jobId, or orderId with account')
  end
  local id = wanted.jobId
    or redis.call('GET', order_key(prefix, wanted.orderId, wanted.account or 'default'))
  local job = id and read_job(prefix, id) or {}
  return job.state and describe(job) or '{"status":"unknown"}'
end

redis.register_function{function_name = 'cancelq_status', callback = status, flags = {'no-writes'}}
