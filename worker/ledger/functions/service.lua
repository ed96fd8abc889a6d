-- cancelq_lock_out: no claims for a while, whoever asks; a longer lock-out stays.
-- Keys: prefix. Arguments: delay in microseconds. Reply: when the lock-out ends.
-- `stood_still` sums up all lock-outs, without overlaps: budgets do not count them.
local function lock_out(keys, args)
  local prefix = keys[1]
  local now, before = micros(), lockout_until(prefix)
  local ends = math.max(before, now + tonumber(args[1]))
  local added = ends - math.max(before, now)
  write('HSET', prefix .. ':meta', 'lockout_until', text_of(ends),
    'stood_still', text_of(stood_still(prefix) + added))
  return text_of(ends)
end

-- cancelq_version: of this library. Reply: an integer, see VERSION.
local function version()
  return VERSION
end

redis.register_function{function_name = 'cancelq_lock_out', callback = lock_out, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_version', callback = version, flags = {'no-writes'}}
