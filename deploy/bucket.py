"""Make the bucket for artifacts where it does not exist: `python bucket.py NAME`.

Reads address and keys from the variables that MLflow reads too.
"""

import os
import sys

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    """Make it; one that is ours already is left as it is."""
    name = sys.argv[1]
    s3 = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
    region = s3.meta.region_name
    # The oldest region is the one that may not be named.
    elsewhere = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        s3.create_bucket(Bucket=name, **elsewhere)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    print(f"The bucket {name} is there.")


if __name__ == "__main__":
    main()
