-- ISO 8601 on both sides of the door, microseconds inside. Offset optional: without one it is UTC.

local LATEST_YEAR = 2199 -- microseconds stay exact in a double
local MONTH_DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

local function is_day(year, month, day)
  if year < 1970 or year > LATEST_YEAR or month < 1 or month > 12 or day < 1 then
    return false
  end
  return day <= MONTH_DAYS[month] + ((month == 2 and is_leap(year)) and 1 or 0)
end

-- Days since 1970-01-01; years begin in March, so that the leap day comes last.
local function days_since_1970(year, month, day)
  if month <= 2 then
    year, month = year - 1, month + 12
  end
  local leaps = math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
  return year * 365 + leaps + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

-- Seconds east of UTC; nil when the text is no offset.
local function offset_seconds(zone)
  if zone == '' or zone == 'Z' or zone == 'z' then
    return 0
  end
  local sign, hours, minutes = zone:match('^([+-])(%d%d):?(%d%d)$')
  if not sign then
    sign, hours = zone:match('^([+-])(%d%d)$')
  end
  if not sign or tonumber(hours) > 23 or tonumber(minutes or 0) > 59 then
    return nil
  end
  local seconds = tonumber(hours) * 3600 + tonumber(minutes or 0) * 60
  return sign == '-' and -seconds or seconds
end

-- Microseconds since 1970 of a date with a time of day; nil when it is none.
local function micros_of_iso(text)
  local year, month, day, hour, minute, rest =
    text:match('^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d)(.*)$')
  if not year or not is_day(tonumber(year), tonumber(month), tonumber(day)) then
    return nil
  end
  local second, fraction = '0', ''
  if rest:find('^:%d%d') then
    second, rest = rest:sub(2, 3), rest:sub(4)
    local digits = rest:match('^[.,](%d+)')
    if digits then
      fraction, rest = digits, rest:sub(#digits + 2)
    end
  end
  local offset = offset_seconds(rest)
  if not offset or tonumber(hour) > 23 or tonumber(minute) > 59 or tonumber(second) > 59 then
    return nil
  end
  local days = days_since_1970(tonumber(year), tonumber(month), tonumber(day))
  local seconds = days * 86400 + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second) - offset
  return seconds * 1000000 + tonumber((fraction .. '000000'):sub(1, 6))
end

-- The date of a day number: the inverse of days_since_1970.
local function date_of(days)
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local day_of_era = shifted - era * 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460)
    + math.floor(day_of_era / 36524) - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era
    - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local month = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  return year_of_era + era * 400 + (month <= 2 and 1 or 0), month, day
end

-- `2026-11-23T20:00:00.000000Z`
local function iso_of_micros(moment)
  local seconds = math.floor(moment / 1000000)
  local days = math.floor(seconds / 86400)
  local rest = seconds - days * 86400
  local year, month, day = date_of(days)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day, math.floor(rest / 3600),
    math.floor(rest / 60) % 60, rest % 60, moment - seconds * 1000000)
end
