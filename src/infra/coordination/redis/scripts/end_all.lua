-- Ends all leases. Answers how many were running.
-- KEYS: the leases by their ends.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local running = redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', now), '+inf')
redis.call('DEL', KEYS[1])
return running
