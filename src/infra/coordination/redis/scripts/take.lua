-- Takes the permit for a refresh token.
-- KEYS: the token, the tombstone of the grant.
-- ARGV: owner, grant, the row's epoch, lifetime in ms, whose permit may be replaced ('' nobody's, or an owner).
local tombstone = redis.call('GET', KEYS[2])
if tombstone then
    return {'buried', tombstone}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local value = redis.call('GET', KEYS[1])
if value then
    local owner, since = string.match(value, '^P|(%x+)|(%d+)$')
    local _, header, epoch, grant = string.find(value, '^S|(%d+)|(%x+)|')
    if owner then
        -- The owner's own too: it may stand for a presentation whose outcome is unknown.
        if owner ~= ARGV[5] then
            return {'held', owner, string.format('%.0f', math.max(now - tonumber(since), 0))}
        end
    elseif epoch then
        if grant == ARGV[2] and tonumber(epoch) > tonumber(ARGV[3]) then
            return {'successor', string.sub(value, header + 1)}
        end
    else
        return {'damaged'}
    end
end
redis.call('SET', KEYS[1], string.format('P|%s|%.0f', ARGV[1], now), 'PX', ARGV[4])
return {'taken'}
