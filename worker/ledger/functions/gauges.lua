-- cancelq_gauges: how much waits, and for how long. Keys: prefix. Reply: {name, integer, ...}; a time is in
-- microseconds since 1970, 0 where there is none.
-- due: may be claimed now. in_hand: claimed. parked: to be POSTed later. unknown: a POST may have acted and the order
-- was not read since. budget_left: POSTs that the rate limit leaves to the login with the least, -1 without a limit.
-- oldest_token: when the oldest token was obtained.

local function parked(prefix, now)
  local later, count = '(' .. text_of(now), 0
  for _, login in ipairs(all_logins(prefix)) do
    for _, index in ipairs({'urgent', 'due'}) do
      count = count + redis.call('ZCOUNT', prefix .. ':' .. index_name(index, login), later, '+inf')
    end
  end
  return count
end

local function budget_left(prefix, now)
  local least = math.huge
  for _, login in ipairs(all_logins(prefix)) do
    least = math.min(least, room_of(limits_of(prefix, login), now).post)
  end
  return least < math.huge and math.max(0, least) or -1
end

local function oldest_token(prefix)
  local oldest = math.huge
  for _, login in ipairs(all_logins(prefix)) do
    oldest = math.min(oldest, tonumber(redis.call('HGET', prefix .. ':token:' .. login, 'put_at') or math.huge))
  end
  return oldest < math.huge and oldest or 0
end

local function gauges(keys)
  local prefix, now = keys[1], micros()
  local due, oldest_due = look_around(prefix, now)
  local unknown_since = oldest_unknown(prefix)
  local locked = lockout_until(prefix)
  return {'now', now, 'open', count_open(prefix), 'due', due, 'in_hand', redis.call('ZCARD', prefix .. ':leases'),
    'parked', parked(prefix, now), 'unknown', redis.call('ZCARD', prefix .. ':unknown'), 'oldest_due', oldest_due or 0,
    'oldest_unknown', tonumber(unknown_since) or 0, 'locked_out_until', locked > now and locked or 0,
    'paused', is_paused(prefix) and 1 or 0, 'draining', is_draining(prefix) and 1 or 0,
    'bells', count_bells(prefix) or 0, 'budget_left', budget_left(prefix, now),
    'oldest_token', oldest_token(prefix)}
end

redis.register_function{function_name = 'cancelq_gauges', callback = gauges, flags = {'no-writes'}}
