-- Takes from a token bucket. KEYS: the bucket. ARGV: requests, per (microseconds), burst, cost, want; below 0 it gives back.
-- Answers how many of want were granted, the microseconds until the next one could be, and whether a stricter limit of somebody else held.
--
-- The bucket is a text of seven numbers: tokens, when they were counted, the rate that holds (requests, per) and when it was last asked for,
-- the burst that holds and when it was last asked for. Of two rates the lower one holds, of two bursts the smaller one, until nobody has asked
-- for it for a minute. What is no such text is replaced by an empty bucket, and whoever found it gets an error.
local requests, per, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local cost, want = tonumber(ARGV[4]), tonumber(ARGV[5])
local hold, fresh = 60000000, 1000000
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local raw = redis.pcall('GET', KEYS[1])
local b = {burst, now, requests, per, now, burst, now}
local changed = not raw
if raw then
  local n = 0
  if type(raw) == 'string' and #raw <= 256 then
    for word in string.gmatch(raw, '%S+') do
      n = n + 1
      b[n] = tonumber(word)
      if n > 7 or not b[n] or not (b[n] > -1e16 and b[n] < 1e16) then n = 99 break end
    end
  end
  if n ~= 7 or b[3] < 1 or b[4] < 1 or b[6] < 1 then
    redis.call('DEL', KEYS[1])
    redis.call('SET', KEYS[1], string.format('0 %.0f %.0f %.0f %.0f %.0f %.0f', now, requests, per, now, burst, now), 'PX', 60000)
    return redis.error_reply('DAMAGED this is no bucket')
  end
  for _, i in ipairs({2, 5, 7}) do
    if b[i] > now then b[i] = now changed = true end -- the clock went back
  end
end

b[1] = math.min(b[6], b[1] + (now - b[2]) * b[3] / b[4]) -- by what held until now
local stricter = 0
local mine, held = requests * b[4], b[3] * per
if mine > held and now - b[5] < hold then
  stricter = 1
elseif mine ~= held or now - b[5] >= fresh then
  b[3], b[4], b[5], changed = requests, per, now, true
end
if burst > b[6] and now - b[7] < hold then
  stricter = 1
elseif burst ~= b[6] or now - b[7] >= fresh then
  b[6], b[7], changed = burst, now, true
end

b[1] = math.min(b[6], b[1])
cost = math.min(cost, b[6])
local granted = want
if want > 0 then granted = math.max(0, math.min(want, math.floor(b[1] / cost))) end
local wait = 0
if granted < want then
  wait = math.min(1e15, math.ceil((cost * (granted + 1) - b[1]) * b[4] / b[3]))
end
if granted ~= 0 or changed then
  b[1], b[2] = math.min(b[6], b[1] - granted * cost), now
  local keep = math.min(3e11, math.ceil((b[6] - b[1]) * b[4] / b[3] / 1000)) + 60000
  redis.call('SET', KEYS[1], string.format('%.17g %.0f %.0f %.0f %.0f %.0f %.0f', unpack(b)), 'PX', string.format('%.0f', keep))
end
return {granted, wait, stricter}
