-- cancelq_witness: remember the newest committed audit row of a writer; the audit alone cannot know its own end.
-- Keys: prefix. Arguments: writer id, sequence number, digest, and, while newer rows may be in a host's journal, its
-- mark "journal host first-row". Reply: 1 if it was news, else 0.

local WRITERS_CAP = 10000 -- each process start is a writer; the hash must not grow without end

local function witness(keys, args)
  local heads = keys[1] .. ':heads'
  local stored = redis.call('HGET', heads, args[1])
  local row = args[2] .. ' ' .. args[3]
  local told = row .. (args[4] and args[4] ~= '' and ' ' .. args[4] or '')
  if stored and tonumber(stored:match('^%d+')) >= tonumber(args[2]) then
    if stored == told or stored:match('^%d+ %S*') ~= row then -- of a row that was told only its mark may change
      return 0
    end
  end
  if not stored and redis.call('HLEN', heads) >= WRITERS_CAP then
    write('HDEL', heads, redis.call('HRANDFIELD', heads)) -- a live writer is back with its next row
  end
  write('HSET', heads, args[1], told)
  return 1
end

-- cancelq_heads: what cancelq_witness keeps. Keys: prefix. Reply: {writer, "seq digest[ mark]", ...}.
local function heads(keys)
  return redis.call('HGETALL', keys[1] .. ':heads')
end

redis.register_function{function_name = 'cancelq_witness', callback = witness, flags = {'allow-oom'}}
redis.register_function{function_name = 'cancelq_heads', callback = heads, flags = {'no-writes'}}
