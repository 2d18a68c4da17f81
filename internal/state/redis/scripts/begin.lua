-- Claims a key for an owner, or says how it stands. KEYS: the key. ARGV: fingerprint, owner, lease (milliseconds), the largest record, the largest that is told.
-- Answers {1}: claimed; {2}: it runs; {3, size, record}: it is finished, and a larger record, of which the size alone is told, is to be asked for; {4}: it has
-- another fingerprint.
-- What no daemon can have written is left as it is, and whoever finds it gets an error: nobody can tell whether that write was sent. Only where it
-- would stay for ever it is given a day.
-- The key is a hash: f the fingerprint, o the owner ('' when it is finished), a whether a write was sent before, r the record.
local fingerprint, owner, lease = ARGV[1], ARGV[2], ARGV[3]
local function damaged()
  if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], 86400000) end
  return redis.error_reply('DAMAGED this is no write')
end
local e = redis.pcall('HMGET', KEYS[1], 'f', 'o', 'a')
if e.err then return damaged() end
local f, o, a = e[1], e[2], e[3]
if not f and not o and not a then
  if redis.call('EXISTS', KEYS[1]) == 1 then return damaged() end
  redis.call('HSET', KEYS[1], 'f', fingerprint, 'o', owner, 'a', '0')
  redis.call('PEXPIRE', KEYS[1], lease)
  return {1}
end
local size = redis.call('HSTRLEN', KEYS[1], 'r')
if not f or not o or not a or size > tonumber(ARGV[4]) then return damaged() end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], lease) end -- nothing is claimed for ever
if f ~= fingerprint then return {4} end
if o == owner or o == '' and size == 0 then
  if o == '' then a = '1' end
  redis.call('HSET', KEYS[1], 'o', owner, 'a', a)
  redis.call('PEXPIRE', KEYS[1], lease)
  return {1}
end
if o ~= '' then return {2} end
if size > tonumber(ARGV[5]) then return {3, size, ''} end
return {3, size, redis.call('HGET', KEYS[1], 'r')}
