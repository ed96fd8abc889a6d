-- cancelq_witness: remember the newest committed audit row of a writer; the audit alone cannot know its own end.
-- Keys: prefix. Arguments: writer id, sequence number, digest. Reply: 1 if it was newer, else 0.

local WRITERS_CAP = 10000 -- each process start is a writer; the hash must not grow without end

local function witness(keys, args)
  local heads = keys[1] .. ':heads'
  local stored = redis.call('HGET', heads, args[1])
  if stored and tonumber(stored:match('^%d+')) >= tonumber(args[2]) then
    return 0
  end
  if not stored and redis.call('HLEN', heads) >= WRITERS_CAP then
    write('HDEL', heads, redis.call('HRANDFIELD', heads)) -- a live writer is back with its next row
  end
  write('HSET', heads, args[1], args[2] .. ' ' .. args[3])
  return 1
end

-- cancelq_heads: what cancelq_witness keeps. Keys: prefix. Reply: {writer, "seq digest", ...}.
local function heads(keys)
  return redis.call('HGETALL', keys[1] .. ':heads')
end

redis.register_function{function_name = 'cancelq_witness', callback = witness, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_heads', callback = heads, flags = {'no-writes'}}
