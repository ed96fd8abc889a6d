-- cancelq_lock_out: no claims for a while, whoever asks; a longer lock-out stays.
-- Keys: prefix. Arguments: delay in microseconds. Reply: when the lock-out ends.
-- `stood_still` sums up all lock-outs, without overlaps: budgets do not count them.
local function lock_out(keys, args)
  local prefix = keys[1]
  local now, before = micros(), lockout_until(prefix)
  local ends = math.max(before, now + tonumber(args[1]))
  local added = ends - math.max(before, now)
  if before <= now then -- one alert each, however often it is prolonged
    raise_alert(prefix, now, '{"event":"locked_out","since":"' .. iso_of_micros(now) .. '"}')
  end
  write('HSET', prefix .. ':meta', 'lockout_until', text_of(ends),
    'stood_still', text_of(stood_still(prefix) + added))
  return text_of(ends)
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

-- cancelq_version: of this library. Reply: an integer, see VERSION.
local function version()
  return VERSION
end

redis.register_function{function_name = 'cancelq_lock_out', callback = lock_out, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_sign_on', callback = sign_on, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_sign_off', callback = sign_off, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_version', callback = version, flags = {'no-writes'}}
