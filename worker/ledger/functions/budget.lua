-- How many calls a login may still make: CANCELQ_RATE_LIMIT as sliding windows, several at once.
-- A window is cut into slots, {..}:calls:LOGIN:WINDOW is slot -> calls. A call counts from its claim, in a slot ahead
-- of the present, until it was reported (settle, close) or that slot has passed; from then on in the slot of the
-- report. It was made in between, so no window of this length ever holds more than its limit. What an error leaves
-- behind counts too long, never too short, and is gone with the window.

local SLOTS = 60 -- per window: what was spent comes back at most a sixtieth of a window late
local IN_HAND = 30000000 -- a claimed POST that nobody speaks of for so long has been made, if ever
local ON_ITS_WAY = 100000 -- a read is counted right before its first byte
local READ_SHARE = 0.8 -- reads leave the rest of each window to cancels
local TOKEN_SHARE = 0.01 -- the last calls of a large window are kept for tokens
local LOOK_AGAIN = 100000 -- when all that is spent is in hand, nobody can say when it comes back

-- The limits in force: {count, window and slot in microseconds, key} each.
local function limits_of(prefix, login)
  local found = {}
  for count, window in (meta(prefix, 'rate_limit') or ''):gmatch('(%d+)/(%d+)') do
    found[#found + 1] = {count = tonumber(count), slot = tonumber(window) / SLOTS,
      key = prefix .. ':calls:' .. login .. ':' .. window}
  end
  return found
end

-- How many calls count now, and their slots. What no longer counts is noted, and dropped by whoever counts a call:
-- watchers look too, and may not write.
local function spent(limit, now)
  local oldest, newest = math.floor(now / limit.slot) - SLOTS, math.floor((now + IN_HAND) / limit.slot)
  local flat, calls, slots = redis.call('HGETALL', limit.key), 0, {}
  limit.stale = {}
  for i = 1, #flat, 2 do
    local slot, count = tonumber(flat[i]), math.max(0, tonumber(flat[i + 1]))
    if slot < oldest or slot > newest or count == 0 then -- or from before the clock was set back
      limit.stale[#limit.stale + 1] = flat[i]
    else
      calls = calls + count
      slots[#slots + 1] = {slot = slot, count = count}
    end
  end
  return calls, slots
end

-- When so many of the calls no longer count.
local function freed_at(limit, slots, many, now)
  table.sort(slots, function(one, other) return one.slot < other.slot end)
  for _, found in ipairs(slots) do
    many = many - found.count
    if many <= 0 and found.slot * limit.slot <= now then
      return math.ceil((found.slot + SLOTS + 1) * limit.slot)
    end
  end
  return now + LOOK_AGAIN
end

local function caps(count)
  return {post = count - math.floor(count * TOKEN_SHARE), read = math.max(1, math.floor(count * READ_SHARE))}
end

-- Calls that may be begun now, by kind, and when there will be one where there is none: {post, read, post_at, read_at}.
local function room_of(limits, now)
  local room = {post = math.huge, read = math.huge, post_at = now, read_at = now}
  for _, limit in ipairs(limits) do
    local calls, slots = spent(limit, now)
    for kind, cap in pairs(caps(limit.count)) do
      room[kind] = math.min(room[kind], cap - calls)
      if cap <= calls then
        room[kind .. '_at'] = math.max(room[kind .. '_at'], freed_at(limit, slots, calls - cap + 1, now))
      end
    end
  end
  return room
end

-- Count calls (or take them back, when negative) at a time.
local function count_calls(limits, calls, at)
  if calls ~= 0 then
    for _, limit in ipairs(limits) do
      if limit.stale and #limit.stale > 0 then
        write('HDEL', limit.key, unpack(limit.stale))
        limit.stale = nil
      end
      write('HINCRBY', limit.key, math.floor(at / limit.slot), calls)
    end
  end
end

-- A holder reports: what was reserved ("calls@claim" in the job) is given back, what was made counts from now.
-- Gathered in `tally`, login -> time -> calls, until `count_reports`; the job's own field must be gone by then.
local function report_calls(prefix, job, made, now, tally)
  local each, claimed_at = (job.calls or ''):match('^(%d+)@(%d+)$')
  if each then
    local login, before = login_of(prefix, job.account), tonumber(claimed_at) + IN_HAND
    tally[login] = tally[login] or {}
    tally[login][now] = (tally[login][now] or 0) + made
    tally[login][before] = (tally[login][before] or 0) - tonumber(each)
  end
end

local function count_reports(prefix, tally)
  for login, reported in pairs(tally) do
    local limits = limits_of(prefix, login)
    for _, wanted in ipairs({true, false}) do -- what was made goes first: an error must not make room
      for at, calls in pairs(reported) do
        if (calls > 0) == wanted then
          count_calls(limits, calls, at)
        end
      end
    end
  end
end

-- All logins, beginning with another one each time: a backlog of one must not keep the others waiting.
local function logins_in_turn(prefix, now)
  local names, logins, stopped = all_logins(prefix), {}, is_held(prefix)
  for i = 1, #names do
    local login = read_login(prefix, names[(i + now) % #names + 1])
    login.limits, login.stopped = limits_of(prefix, login.name), stopped
    login.room = room_of(login.limits, now)
    logins[i] = login
  end
  return logins
end

local KINDS = {urgent = 'post', due = 'post', lapsed = 'read', confirm = 'read'} -- of call; closing needs none

-- When the first job of this index may be worked: due, its login free, its budget not spent. Nil if never.
local function workable_at(prefix, index, login, now)
  local kind = KINDS[index]
  local first = tonumber(redis.call('ZRANGE', prefix .. ':' .. index_name(index, login.name), 0, 0, 'WITHSCORES')[2])
  if not first or not kind then
    return first
  elseif kind == 'post' and login.stopped then
    return nil
  end
  return math.max(first, login.held_until, login.room[kind] < 1 and login.room[kind .. '_at'] or 0)
end

-- The earliest time of work that may be done, and whether a budget is what it waits for.
local function next_work(prefix, logins, now)
  local earliest, for_budget
  for _, login in ipairs(logins) do
    if login.room.post < 1 or login.room.read < 1 then
      login.room = room_of(login.limits, now)
    end
    for _, index in ipairs(INDEXES) do
      local at = workable_at(prefix, index, login, now)
      if at and (not earliest or at < earliest) then
        local kind = KINDS[index]
        earliest, for_budget = at, kind ~= nil and at > now and login.room[kind] < 1
      end
    end
  end
  return earliest, for_budget
end
