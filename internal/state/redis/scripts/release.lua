-- Ends the owner's claim, of which nothing came. KEYS: the key. ARGV: the owner, for how long a write that was sent before is known (milliseconds).
-- Answers 1, or 0 where the claim is not the owner's.
local e = redis.call('HMGET', KEYS[1], 'o', 'a')
if ARGV[1] == '' or e[1] ~= ARGV[1] then return 0 end
if e[2] == '1' then
  redis.call('HSET', KEYS[1], 'o', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('DEL', KEYS[1])
end
return 1
