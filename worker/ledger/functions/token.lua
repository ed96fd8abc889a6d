-- One access token for each login, the same for all workers: sealed, numbered, and kept by one of them at a time.
-- {..}:token:LOGIN has `revision`, `sealed` and `seal` (whose secrets open it), `put_at`, `renew_at`, `ends_at`, the
-- present keeper until `kept_until`, and after a failure `trouble`, `ticket`, and `not_before`, the time of the next try.
-- {..}:token_calls:LOGIN has the last hour's calls, "login ID" or "renewal ID": the exchange limits both.

local SPENT = 'the logins of this hour are spent'
local HOUR = 3600000000
local MOST_CALLS = {login = 5, renewal = 12} -- an hour; the exchange's own are 5 failed ones and 15

-- Calls of one kind in the last hour, and when the first of them was made.
local function token_calls(prefix, login, kind, now)
  local made, first = 0, now
  local calls = redis.call('ZRANGEBYSCORE', prefix .. ':token_calls:' .. login, text_of(now - HOUR), '+inf', 'WITHSCORES')
  for i = 1, #calls, 2 do
    if calls[i]:match('^%a+') == kind then
      first = made == 0 and tonumber(calls[i + 1]) or first
      made = made + 1
    end
  end
  return made, first
end

local function token_fields(prefix, login, ...)
  return redis.call('HMGET', prefix .. ':token:' .. login, ...)
end

-- cancelq_token: how a login's token stands. Keys: prefix. Arguments: login.
-- Reply: {now, revision, sealed, seal, renew_at, ends_at, not_before, ticket, trouble, logins in the last hour}.
local function token(keys, args)
  local prefix, now = keys[1], micros()
  local f = token_fields(prefix, args[1], 'revision', 'sealed', 'seal', 'renew_at', 'ends_at', 'not_before', 'ticket', 'trouble')
  local wait = math.max(tonumber(f[6] or '0'), read_login(prefix, args[1]).locked_until)
  local logins = token_calls(prefix, args[1], 'login', now)
  return {text_of(now), f[1] or '0', f[2] or '', f[3] or '', f[4] or '0', f[5] or '0', text_of(wait), f[7] or '',
    f[8] or '', logins}
end

-- A person must hear of it.
local function token_alert(prefix, login, trouble, now, next_try)
  raise_alert(prefix, now, cjson.encode({event = 'login_failed', login = login, trouble = trouble,
    since = iso_of_micros(now), nextTry = iso_of_micros(next_try)}))
end

-- cancelq_token_take: the right to make one call for a token, for a while; a second worker does not get it.
-- Keys: prefix. Arguments: login, id of the keeper, microseconds, revision that it knows, "login" or "renewal".
-- Reply: 1; 0 if somebody else keeps it or knows a newer revision; -1 if the hour's calls are spent (a login then has
-- to wait until the first of them is an hour old, and an alert says so).
-- Order of writes: the call, the keeper; a call that was counted and not made costs nothing but that.
local function token_take(keys, args)
  local prefix, login, keeper, now = keys[1], args[1], args[2], micros()
  local f = token_fields(prefix, login, 'revision', 'keeper', 'kept_until')
  local kept = f[2] and f[2] ~= keeper and tonumber(f[3]) > now
  if kept or (f[1] or '0') ~= args[4] then
    return 0
  end
  local made, first = token_calls(prefix, login, args[5], now)
  if made >= MOST_CALLS[args[5]] then
    if args[5] == 'login' then
      token_alert(prefix, login, SPENT, now, first + HOUR)
      write('HSET', prefix .. ':token:' .. login, 'not_before', text_of(first + HOUR), 'trouble', SPENT)
    end
    return -1
  end
  local calls = prefix .. ':token_calls:' .. login
  write('ZREMRANGEBYSCORE', calls, '-inf', text_of(now - HOUR))
  write('ZADD', calls, text_of(now), args[5] .. ' ' .. text_of(now))
  write('HSET', prefix .. ':token:' .. login, 'keeper', keeper, 'kept_until', text_of(now + tonumber(args[3])))
  return 1
end

-- cancelq_token_put: a newer token, from its keeper alone and only on top of the revision that it knew.
-- Keys: prefix. Arguments: login, keeper, revision it knew, sealed, seal, microseconds to renewal, to the end.
-- Reply: the new revision, or 0: another keeper was faster, and this token is not to be used.
local function token_put(keys, args)
  local prefix, login, now = keys[1], args[1], micros()
  local f = token_fields(prefix, login, 'revision', 'keeper')
  if f[2] ~= args[2] or (f[1] or '0') ~= args[3] then
    return 0
  end
  local revision = tonumber(args[3]) + 1
  write('HSET', prefix .. ':token:' .. login, 'revision', text_of(revision), 'sealed', args[4], 'seal', args[5],
    'renew_at', text_of(now + tonumber(args[6])), 'ends_at', text_of(now + tonumber(args[7])), 'put_at', text_of(now))
  write('HDEL', prefix .. ':token:' .. login, 'keeper', 'kept_until', 'not_before', 'ticket', 'trouble')
  return revision
end

-- cancelq_token_fail: no token came of it. Keys: prefix. Arguments: login, keeper, microseconds to the next try,
-- what is wrong, ticket, what it was: "login", "renewal", or "unsent" for one that never left.
-- Reply: {now, time of the next try}; an hour's last login makes that later. A login that fails raises an alert, once
-- when the trouble begins and once when the hour's logins are spent.
local function token_fail(keys, args)
  local prefix, login, now = keys[1], args[1], micros()
  local f = token_fields(prefix, login, 'keeper', 'trouble')
  if f[1] ~= args[2] then
    return {text_of(now), text_of(now)}
  end
  local name, next_try = prefix .. ':token:' .. login, now + tonumber(args[3])
  if args[6] == 'login' then
    local made, first = token_calls(prefix, login, 'login', now)
    local spent = made >= MOST_CALLS.login
    next_try = spent and math.max(next_try, first + HOUR) or next_try
    if spent or not f[2] then
      token_alert(prefix, login, args[4], now, next_try)
    end
    write('HSET', name, 'trouble', args[4])
  elseif args[6] == 'unsent' then
    local calls = prefix .. ':token_calls:' .. login
    write('ZREM', calls, redis.call('ZRANGE', calls, -1, -1)[1] or '')
  end
  write('HSET', name, 'not_before', text_of(next_try), 'ticket', args[5])
  write('HDEL', name, 'keeper', 'kept_until')
  return {text_of(now), text_of(next_try)}
end

redis.register_function{function_name = 'cancelq_token', callback = token, flags = {'no-writes'}}
redis.register_function{function_name = 'cancelq_token_take', callback = token_take, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_token_put', callback = token_put, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_token_fail', callback = token_fail, flags = {'allow-oom'}}
