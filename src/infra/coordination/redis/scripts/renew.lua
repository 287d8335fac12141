-- Prolongs a lease that runs, never beyond the cap, and never shortens it. Times are milliseconds of this server's clock.
-- KEYS: the leases by their ends, the cap. ARGV: lease, for how long.
-- Answers for how long and whether capped, or nothing.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local old = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
if not old or old <= now then
    return false
end
local cap = tonumber(redis.call('GET', KEYS[2]))
local ends = now + tonumber(ARGV[2])
if cap and cap < ends then
    ends = cap
end
ends = math.max(ends, old)
redis.call('ZADD', KEYS[1], string.format('%.0f', ends), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', tonumber(last[2])))
return {ends - now, cap and 1 or 0}
