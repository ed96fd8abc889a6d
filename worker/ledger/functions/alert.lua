-- What a person must hear of, kept until it was delivered, and only while some worker delivers.
-- A member of {..}:alerts is the alert's JSON, its score the time of the next try.

local ALERTS_CAP = 10000 -- beyond that nobody reads them anyway
local ALERT_TRIES = 20

local function raise_alert(prefix, now, text)
  local wanted = tonumber(meta(prefix, 'alerts_until') or '0') > now
  if wanted and redis.call('ZCARD', prefix .. ':alerts') < ALERTS_CAP then
    write('ZADD', prefix .. ':alerts', 'NX', text_of(now), text)
  end
end

-- cancelq_alert: one alert that is due, to be tried now; it comes back later unless it is taken off.
-- Keys: prefix. Arguments: microseconds until the next try. Reply: its JSON, or nothing.
local function next_alert(keys, args)
  local prefix, now = keys[1], micros()
  local due = redis.call('ZRANGEBYSCORE', prefix .. ':alerts', '-inf', text_of(now), 'LIMIT', 0, 1)[1]
  if not due then
    return false
  end
  local tries = write('HINCRBY', prefix .. ':alert_tries', due, 1)
  if tries >= ALERT_TRIES then -- the last one
    write('ZREM', prefix .. ':alerts', due)
    write('HDEL', prefix .. ':alert_tries', due)
  else
    write('ZADD', prefix .. ':alerts', text_of(now + tonumber(args[1])), due)
  end
  return due
end

-- cancelq_alerted: it was delivered. Keys: prefix. Arguments: its JSON.
local function alerted(keys, args)
  write('HDEL', keys[1] .. ':alert_tries', args[1])
  return write('ZREM', keys[1] .. ':alerts', args[1])
end

redis.register_function{function_name = 'cancelq_alert', callback = next_alert, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_alerted', callback = alerted, flags = {'allow-oom'}}
