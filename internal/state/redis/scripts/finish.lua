-- Replaces the owner's claim by a record. KEYS: the key. ARGV: the owner, the record ('' when nothing is known), for how long (milliseconds).
-- Answers 1, or 0 where the claim is not the owner's.
if ARGV[1] == '' or redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'o', '')
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], 'r')
else
  redis.call('HSET', KEYS[1], 'r', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
