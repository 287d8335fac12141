-- Takes back an owner's permit.
-- KEYS: the token. ARGV: owner.
local value = redis.call('GET', KEYS[1])
if value and string.match(value, '^P|(%x+)|') == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
