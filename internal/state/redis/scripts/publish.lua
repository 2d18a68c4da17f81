-- Stores a value and tells everybody. KEYS: its key. ARGV: the value, for how long (milliseconds), the channel, the key's name there.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4] .. ARGV[2] .. ' ' .. ARGV[1])
return 1
