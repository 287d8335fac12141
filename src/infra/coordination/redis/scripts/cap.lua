-- Caps all leases at the longest that runs. A cap that stands stays as it is, and is remembered anew.
-- KEYS: the leases by their ends, the cap. ARGV: for how long a cap is remembered beyond its time, in ms.
-- Answers how many milliseconds the longest lease has left.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
local longest = math.max(tonumber(last[2] or now), now)
local cap = tonumber(redis.call('GET', KEYS[2])) or longest
local left = math.max(cap - now, 0)
redis.call('SET', KEYS[2], string.format('%.0f', cap), 'PX', string.format('%.0f', left + tonumber(ARGV[1])))
return longest - now
