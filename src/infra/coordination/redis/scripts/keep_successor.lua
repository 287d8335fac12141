-- Writes the successor of a refresh token, unless one of a later epoch is there.
-- KEYS: the token. ARGV: epoch, the whole value, how long it stands in ms.
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' then
    local epoch = string.match(value, '^S|(%d+)|')
    if epoch and tonumber(epoch) > tonumber(ARGV[1]) then
        return 0
    end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
