-- How the ledger looks to those who sweep and those who watch: what is due, and what nobody knows. Reads only.

-- How many jobs of an index are due, since when, and when the first of the others will be.
local function look_into(prefix, index, login, now)
  local name = prefix .. ':' .. index_name(index, login.name)
  local workable = workable_at(prefix, index, login, now)
  if not workable or workable > now then
    return 0, nil, workable
  end
  local count = redis.call('ZCOUNT', name, '-inf', text_of(now))
  local later = redis.call('ZRANGE', name, count, count, 'WITHSCORES')[2]
  local freed = math.max(login.held_until, login.dry_until, login.short_until)
  local first = math.max(freed, tonumber(redis.call('ZRANGE', name, 0, 0, 'WITHSCORES')[2]))
  return count, math.min(first, now), tonumber(later)
end

-- The same of all jobs that may be worked.
local function look_around(prefix, now)
  local due, oldest, next_due = 0, nil, nil
  for _, login in ipairs(logins_in_turn(prefix, now)) do
    for _, index in ipairs(INDEXES) do
      local count, first, later = look_into(prefix, index, login, now)
      due = due + count
      oldest = first and math.min(first, oldest or first) or oldest
      next_due = later and math.min(later, next_due or later) or next_due
    end
  end
  return due, oldest, next_due
end

local function oldest_unknown(prefix)
  return redis.call('ZRANGE', prefix .. ':unknown', 0, 0, 'WITHSCORES')[2] or ''
end
