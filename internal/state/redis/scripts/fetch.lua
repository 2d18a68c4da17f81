-- Answers with a value and how long it holds (milliseconds), or with nothing. KEYS: its key. ARGV: the largest value that is believed.
-- What nobody can have published is removed, and whoever found it gets an error.
local size = redis.pcall('STRLEN', KEYS[1])
if type(size) ~= 'number' or size > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
  return redis.error_reply('DAMAGED this was not published')
end
if size == 0 then return {} end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
