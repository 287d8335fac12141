-- Registers a lease. Times are milliseconds of this server's clock.
-- KEYS: the leases by their ends, the cap. ARGV: lease, for how long, how many there may be.
-- Answers for how long and whether capped, or nothing.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local cap = tonumber(redis.call('GET', KEYS[2]))
local ends = now + tonumber(ARGV[2])
if cap and cap < ends then
    ends = cap
end
local full = redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) and not redis.call('ZSCORE', KEYS[1], ARGV[1])
if ends <= now or full then
    return false
end
redis.call('ZADD', KEYS[1], string.format('%.0f', ends), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', tonumber(last[2])))
return {ends - now, cap and 1 or 0}
