-- The row has the successor of this epoch.
-- KEYS: the token. ARGV: epoch, how much longer the entry stands in ms.
local value = redis.call('GET', KEYS[1])
if value and string.match(value, '^S|(%d+)|') == ARGV[1] then
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
