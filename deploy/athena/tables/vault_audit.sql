-- Vault's or OpenBao's audit log, as the file or the socket device writes it, by cluster and day.
--
-- What requests and answers carry as data is no column, so that no query can show it: with log_raw there are secrets in
-- it. (It is still in the bucket.) For your bucket: the two places that say example-audit-logs; for your clusters:
-- projection.cluster.values.
CREATE EXTERNAL TABLE IF NOT EXISTS vault_audit (
  `type` string,
  `time` string,
  `error` string,
  `auth` struct<accessor: string, display_name: string, metadata: map<string, string>>,
  `request` struct<
    id: string,
    operation: string,
    path: string,
    mount_type: string,
    namespace: struct<id: string, path: string>,
    client_token_accessor: string,
    headers: map<string, array<string>>,
    remote_address: string
  >,
  `response` struct<
    auth: struct<accessor: string, metadata: map<string, string>>,
    secret: struct<lease_id: string>
  >
)
PARTITIONED BY (`cluster` string, `day` string)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
WITH SERDEPROPERTIES ('ignore.malformed.json' = 'true', 'case.insensitive' = 'false')
STORED AS TEXTFILE
LOCATION 's3://example-audit-logs/vault/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.cluster.type' = 'enum',
  'projection.cluster.values' = 'main',
  'projection.day.type' = 'date',
  'projection.day.format' = 'yyyy/MM/dd',
  'projection.day.range' = '2026/01/01,NOW',
  'projection.day.interval' = '1',
  'projection.day.interval.unit' = 'DAYS',
  'storage.location.template' = 's3://example-audit-logs/vault/${cluster}/${day}/'
)
