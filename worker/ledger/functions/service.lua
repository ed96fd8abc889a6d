-- cancelq_hold: a login makes no calls for a while, whoever asks; a longer hold stays.
-- Keys: prefix. Arguments: login, span in microseconds, 1 for a lock-out, 0 for a penalty. Reply: when the hold ends.
local function hold(keys, args)
  local prefix, now = keys[1], micros()
  local login, ends, is_lockout = read_login(prefix, args[1]), now + tonumber(args[2]), args[3] == '1'
  if is_lockout and login.locked_until <= now then -- one alert each, however often it is prolonged
    raise_alert(prefix, now, '{"event":"locked_out","login":' .. cjson.encode(args[1]) .. ',"since":"'
      .. iso_of_micros(now) .. '"}')
  end
  prolong(login, 'held_until', 'stood_still', ends, now)
  if is_lockout and ends > login.locked_until then
    write('HSET', login.key, 'locked_until', text_of(ends))
  end
  return text_of(login.held_until)
end

-- cancelq_grant: count a read or a token's call right before it is made. A token's call is counted, never refused.
-- Keys: prefix. Arguments: login, "read" or "token". Reply: {now, 1 if it may be made, {login, until, ...} of the lock-outs}.
local function grant(keys, args)
  local prefix, now = keys[1], micros()
  local limits = limits_of(prefix, args[1])
  local granted = args[2] == 'token' or room_of(limits, now).read >= 1
  if granted then
    count_calls(limits, 1, now + ON_ITS_WAY)
  end
  return {now, granted and 1 or 0, lockouts(prefix, now)}
end

-- cancelq_limit: how many calls a login may make, and whom each serves.
-- Keys: prefix. Arguments: limits as "calls/microseconds,...", 1 if the logins are told, then account, login, ...
-- Jobs in an index that is not their login's any more are moved by the next claim.
local function limit_calls(keys, args)
  local prefix, known = keys[1], {}
  write('HSET', prefix .. ':meta', 'rate_limit', args[1])
  for i = 3, #args, 2 do
    known[args[i]] = true
    write('SADD', prefix .. ':login_names', args[i + 1])
    write('HSET', prefix .. ':logins', args[i], args[i + 1])
  end
  local stored = args[2] == '1' and redis.call('HGETALL', prefix .. ':logins') or {}
  for i = 1, #stored, 2 do
    if not known[stored[i]] then
      write('HDEL', prefix .. ':logins', stored[i])
    end
  end
end

-- cancelq_sign_on: a worker says, again and again, for which exchange it works and whether it is a dry run.
-- Keys: prefix. Arguments: base URL, "real" or "dry", life of this word in microseconds, 1 if it sends alerts,
-- the worker's id, 1 if it is at work already (a real one then stays whoever came). Reply: {the base URL that this ledger belongs to, 1 if workers of the other kind are at work}.
-- The first worker stamps the ledger. A dry run beside real workers would end their cancels unsent.
-- A member of {..}:workers is "kind id", its score the time at which that word runs out.
local function sign_on(keys, args)
  local prefix, now = keys[1], micros()
  local name, workers, kind, ends = prefix .. ':meta', prefix .. ':workers', args[2], text_of(now + tonumber(args[3]))
  write('HSETNX', name, 'exchange', args[1])
  write('ZREMRANGEBYSCORE', workers, '-inf', text_of(now))
  local mixed = false
  for _, member in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
    mixed = mixed or member:match('^%a+') ~= kind
  end
  mixed = mixed and not (kind == 'real' and args[6] == '1')
  if meta(prefix, 'exchange') == args[1] and not mixed then
    write('ZADD', workers, ends, kind .. ' ' .. args[5])
    if args[4] == '1' then
      write('HSET', name, 'alerts_until', ends)
    end
  end
  return {meta(prefix, 'exchange'), mixed and 1 or 0}
end

-- cancelq_sign_off: the last word of a worker that ends. Keys: prefix. Arguments: "real" or "dry", its id.
local function sign_off(keys, args)
  return write('ZREM', keys[1] .. ':workers', args[1] .. ' ' .. args[2])
end

-- A file that was just switched on protects nothing before its first rewrite has ended; an ordinary one harms nothing.
local function stamp_fsync(prefix)
  local info = redis.call('INFO', 'server', 'persistence')
  local seen = info:match('run_id:(%x+)') .. ' always'
  local rewriting = says(info, '\naof_rewrite_in_progress:1\r') or says(info, '\naof_rewrite_scheduled:1\r')
  if not rewriting or meta(prefix, 'fsync_seen') == seen then
    write('HSET', prefix .. ':meta', 'fsync_seen', seen)
  end
end

-- cancelq_configure: what the ledger cannot know by itself; a full Redis takes it too.
-- Keys: prefix. Arguments: life of a request id in milliseconds or "", 1 if this server fsyncs before it replies, 0 if
-- not, "" if nobody may know.
local function configure(keys, args)
  local name = keys[1] .. ':meta'
  if args[1] ~= '' then
    write('HSET', name, 'dedupe_life_ms', args[1])
  end
  if args[2] == '1' then
    stamp_fsync(keys[1])
  elseif args[2] == '0' then
    write('HDEL', name, 'fsync_seen')
  end
end

-- cancelq_version: of this library. Reply: an integer, see VERSION.
local function version()
  return VERSION
end

redis.register_function{function_name = 'cancelq_hold', callback = hold, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_grant', callback = grant, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_limit', callback = limit_calls, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_sign_on', callback = sign_on, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_sign_off', callback = sign_off, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_configure', callback = configure, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_version', callback = version, flags = {'no-writes'}}
