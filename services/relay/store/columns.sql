-- Lists of columns, which stand in statements as `/* facts */`.

-- name: facts
url, method, labels, queue, flow_key, topic, endpoint, schedule_id, caller_ip, retries_max, timeout_ms
