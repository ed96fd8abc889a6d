-- Whose calls a job makes, and for how long that login may make none. Holds (lock-outs, penalties) bind a login.
-- {..}:logins is account -> login; an account that is not in it belongs to "default". Each login has its own indexes
-- ("due@NAME", for "default" plain "due") and a hash {..}:login:NAME: held_until, locked_until (a lock-out alone),
-- stood_still (all holds, without overlaps, to the end of the present one), dry_until and ran_dry (the same of reads
-- that wait for their budget), short_until (of cancels that do), held_back, held_at and still_before (nothing
-- might be POSTed: see is_held). Only stood_still and ran_dry move budgets.

local DEFAULT = 'default'

local function login_of(prefix, account)
  return redis.call('HGET', prefix .. ':logins', account) or DEFAULT
end

local function all_logins(prefix)
  local names = redis.call('SMEMBERS', prefix .. ':login_names')
  names[#names + 1] = DEFAULT
  return names
end

local function index_name(index, login)
  return login == DEFAULT and index or index .. '@' .. login
end

-- Which index an open, unclaimed job belongs to; an entry in another one is a leftover and means nothing.
-- A lapsed job never has the step "post": see cancelq_sweep.
local function index_of(prefix, job)
  local index
  if job.step == 'close' then
    index = 'closing'
  elseif job.lapsed then
    index = 'lapsed'
  elseif job.step ~= 'post' then
    index = 'confirm'
  else
    index = job.priority == 'urgent' and 'urgent' or 'due'
  end
  return index_name(index, login_of(prefix, job.account))
end

-- How many jobs have not ended.
local function count_open(prefix)
  local open = redis.call('ZCARD', prefix .. ':leases')
  for _, login in ipairs(all_logins(prefix)) do
    for _, index in ipairs(INDEXES) do
      open = open + redis.call('ZCARD', prefix .. ':' .. index_name(index, login))
    end
  end
  return open
end

local LOGIN_FIELDS = {'held_until', 'locked_until', 'stood_still', 'dry_until', 'ran_dry', 'short_until', 'held_back',
  'held_at', 'still_before'}

-- A login's numbers by name, 0 where there is none.
local function read_login(prefix, name)
  local key = prefix .. ':login:' .. name
  local values, login = redis.call('HMGET', key, unpack(LOGIN_FIELDS)), {name = name, key = key}
  for i, field in ipairs(LOGIN_FIELDS) do
    login[field] = tonumber(values[i] or '0')
  end
  return login
end

-- Microseconds of holds up to now.
local function stood_still_until(login, now)
  return login.stood_still - math.max(0, login.held_until - now)
end

-- Microseconds for which nothing might be POSTed up to now, without what was a lock-out or penalty at the same time.
local function held_back(login, now)
  if login.held_at == 0 then
    return login.held_back
  end
  return login.held_back + math.max(0, now - login.held_at - (stood_still_until(login, now) - login.still_before))
end

-- Begin or end that count, if it has to be; after an error in between only what came since is counted.
local function count_hold(login, now, held)
  local counting = login.held_at > 0
  if counting == held then
    return
  end
  login.held_back, login.held_at = held_back(login, now), now
  login.still_before = stood_still_until(login, now)
  write('HSET', login.key, 'held_back', text_of(login.held_back), 'held_at', text_of(now),
    'still_before', text_of(login.still_before))
  if counting then
    write('HDEL', login.key, 'held_at')
    login.held_at = 0
  end
end

local function count_holds(prefix, now, held)
  for _, name in ipairs(all_logins(prefix)) do
    count_hold(read_login(prefix, name), now, held)
  end
end

-- A span that ends at `ends`, added to the sum of those before; what overlaps counts once.
local function prolong(login, field, sum, ends, now)
  local added = ends - math.max(login[field], now)
  if added > 0 then
    write('HSET', login.key, field, text_of(ends), sum, text_of(login[sum] + added))
    login[field], login[sum] = ends, login[sum] + added
  end
end

-- The latest end of any lock-out.
local function lockout_until(prefix)
  local latest = 0
  for _, name in ipairs(all_logins(prefix)) do
    latest = math.max(latest, read_login(prefix, name).locked_until)
  end
  return latest
end

-- {login, until, ...} of those that are locked out now.
local function lockouts(prefix, now)
  local found = {}
  for _, name in ipairs(all_logins(prefix)) do
    local locked_until = redis.call('HGET', prefix .. ':login:' .. name, 'locked_until')
    if locked_until and tonumber(locked_until) > now then
      found[#found + 1], found[#found + 2] = name, locked_until
    end
  end
  return found
end
