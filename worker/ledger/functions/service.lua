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
-- Keys: prefix. Arguments: base URL, "real" or "dry", life of this word in microseconds, 1 if it sends alerts.
-- Reply: {the base URL that this ledger belongs to, 1 if workers of the other kind are at work}.
-- The first worker stamps the ledger. A dry run beside real workers would end their cancels unsent.
local function sign_on(keys, args)
  local prefix, now = keys[1], micros()
  local name, kind = prefix .. ':meta', args[2]
  write('HSETNX', name, 'exchange', args[1])
  local other = tonumber(meta(prefix, (kind == 'dry' and 'real' or 'dry') .. '_until') or '0')
  local mixed = other > now
  if meta(prefix, 'exchange') == args[1] and not mixed then
    write('HSET', name, kind .. '_until', text_of(now + tonumber(args[3])))
    if args[4] == '1' then
      write('HSET', name, 'alerts_until', text_of(now + tonumber(args[3])))
    end
  end
  return {meta(prefix, 'exchange'), mixed and 1 or 0}
end

-- cancelq_sign_off: the last word of a worker that ends; those who stay sign on again soon.
-- Keys: prefix. Arguments: "real" or "dry".
local function sign_off(keys, args)
  return write('HDEL', keys[1] .. ':meta', args[1] .. '_until')
end

-- cancelq_version: of this library. Reply: an integer, see VERSION.
local function version()
  return VERSION
end

redis.register_function{function_name = 'cancelq_lock_out', callback = lock_out, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_sign_on', callback = sign_on, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_sign_off', callback = sign_off, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_version', callback = version, flags = {'no-writes'}}
