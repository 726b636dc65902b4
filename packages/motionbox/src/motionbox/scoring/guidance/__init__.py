"""What motion is compared with in training: guidances from annotations (`annotated`), and from chance (`controls`)."""
