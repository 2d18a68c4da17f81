-- Answers with the record of a finished write, or with nothing where there is none any more. KEYS: the key. ARGV: fingerprint.
local e = redis.call('HMGET', KEYS[1], 'f', 'o', 'r')
if e[1] ~= ARGV[1] or e[2] ~= '' or not e[3] then return {} end
return {e[3]}
