-- One call from all of a call's buckets, or from none (the generic cell rate algorithm). Times are microseconds of this server's
-- clock, the same for all replicas.
-- KEYS: the buckets. ARGV: for each, the interval and the burst.
-- Answers nothing, or the number of the first empty bucket and how long to wait.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local next = {}
for n, key in ipairs(KEYS) do
    local interval, burst = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
    local full_at = math.max(tonumber(redis.call('GET', key)) or 0, now) + interval
    if full_at - now > burst then
        return {n, math.ceil(full_at - now - burst)}
    end
    next[n] = full_at
end
for n, key in ipairs(KEYS) do
    -- A full bucket is no bucket.
    local left = math.ceil((next[n] - now) / 1000)
    redis.call('SET', key, string.format('%.0f', next[n]), 'PX', left)
end
return false
