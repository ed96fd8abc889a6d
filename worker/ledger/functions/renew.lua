-- cancelq_renew: prolong the leases of the jobs that are really in hand.
-- Keys: prefix. Arguments: lease in microseconds, then job id, claim id, ... Reply: ids of the lost jobs.

local function renew(keys, args)
  local prefix, lost = keys[1], {}
  local expiry = text_of(micros() + tonumber(args[1]))
  for i = 2, #args, 2 do
    local held = redis.call('HMGET', job_key(prefix, args[i]), 'claim', 'state')
    if held[1] == args[i + 1] and held[2] ~= 'done' then
      write('ZADD', prefix .. ':leases', expiry, args[i])
    else
      lost[#lost + 1] = args[i]
    end
  end
  return lost
end

redis.register_function{function_name = 'cancelq_renew', callback = renew, flags = {'allow-oom'}}
