-- Forgets the owner's claim. KEYS: the key. ARGV: the owner. Answers 1, or 0 where the claim is not the owner's.
if ARGV[1] == '' or redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
